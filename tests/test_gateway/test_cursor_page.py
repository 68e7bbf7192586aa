"""docs/cursor.md: its codes and settings exist, its configuration is valid, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from kit.service.running import CONFIG, KEY
from msgspec.structs import fields

from pipeline.gateway.config.load import parse_settings
from pipeline.gateway.config.model_list import REFUSED_BY_CURSOR
from pipeline.gateway.config.settings import PipelineSettings
from pipeline.gateway.failures import TABLE
from stages.choose_deployment import Deployments
from stages.principal import Principal

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "cursor.md").read_text(encoding="utf-8")


def test_its_codes_are_ours() -> None:
    table = PAGE.partition("| `code` |")[2].partition("\n\n")[0]
    codes = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]+)\|", table, re.MULTILINE)))
    assert len(codes) > 10
    assert set(codes) <= set(TABLE)


def test_its_settings_are_ours() -> None:
    own = {field.name for field in fields(PipelineSettings)}
    named = ("keys", "key_header", "cursor_error_status", "reasoning_display", "max_body_mb", "keep_alive_interval_s")
    for name in (*named, "tls_certfile"):
        assert name in PAGE
        assert name in own or name == "keys"


def test_it_names_what_check_config_warns_of() -> None:
    assert all(f"`{name}`" in PAGE for name in REFUSED_BY_CURSOR)


def test_the_alias_for_old_builds_works_and_is_hidden() -> None:
    [example] = re.findall(r"```yaml\n(router_settings:.*?)```", PAGE, re.DOTALL)
    config = yaml.safe_load(CONFIG.format(models="", pipeline="", key=KEY)) | yaml.safe_load(example)
    config["model_list"].append({"model_name": "my-gpt", "litellm_params": {"model": "canned/echo"}})
    settings = parse_settings(yaml.safe_dump(config), source="test.yaml", environ={})
    deployments = Deployments(settings.deployments, settings.routing)
    found = deployments.match("gpt-3.5-turbo")
    assert found is not None
    assert found.name == "my-gpt"
    assert "gpt-3.5-turbo" not in deployments.visible_to(Principal("master", is_master=True))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", PAGE))))
def test_its_links_lead_somewhere(target: str) -> None:
    name, _, anchor = target.partition("#")
    text = (DOCS / name).read_text(encoding="utf-8") if name else PAGE
    if anchor:
        titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
