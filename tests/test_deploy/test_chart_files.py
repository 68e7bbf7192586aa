"""The files of the Helm chart agree with the project, with each other, and with the image; Helm is not needed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.families import FAMILIES

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "headrace"
RULES = ROOT / "deploy" / "prometheus" / "headrace.rules.yml"
ADAPTER = ROOT / "deploy" / "prometheus" / "prometheus-adapter.values.yaml"
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"

VALUES = (CHART / "values.yaml").read_text()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
OPEN = {
    "config",
    "resources",
    "behavior",
    "updateStrategy",
    "podSecurityContext",
    "securityContext",
    "pipelineSettings",
}
"""Values whose fields are headrace's or Kubernetes' own: they check them."""


def test_the_rules_are_one_file() -> None:
    assert (CHART / "files" / RULES.name).resolve() == RULES


def fields(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> tuple[set[str], set[str]]:
    """Return the paths of all fields of the values, and those of the schema."""
    given = {f"{path}{name}" for name in values}
    known = {f"{path}{name}" for name in schema["properties"]}
    for name, value in values.items():
        inner = schema["properties"].get(name, {})
        if isinstance(value, dict) and name not in OPEN and "properties" in inner:
            more_given, more_known = fields(value, inner, f"{path}{name}.")
            given |= more_given
            known |= more_known
    return given, known


def test_the_schema_knows_every_value_and_no_other() -> None:
    given, known = fields(yaml.safe_load(VALUES), SCHEMA)
    assert len(given) > 60
    assert given - known == set()
    assert known - given == {"global", "podDisruptionBudget.minAvailable"}
    assert "minAvailable" in VALUES


def test_every_value_at_the_top_is_explained() -> None:
    """By a comment before it, or before its group of lines."""
    explained = False
    for line in VALUES.splitlines():
        if line.startswith("#"):
            explained = True
        elif not line:
            explained = False
        elif (name := re.match(r"(\w+):", line)) is not None:
            assert explained, name[1]


def test_the_image_runs_as_the_user_and_with_the_files_that_the_chart_expects() -> None:
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    last = text[text.rindex("\nFROM ") :]
    values, template = yaml.safe_load(VALUES), (CHART / "templates" / "deployment.yaml").read_text()
    context = values["podSecurityContext"]
    assert re.search(rf"^USER {context['runAsUser']}(:{context['runAsGroup']})?$", last, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["headrace"\]$', last, re.MULTILINE)
    assert re.search(r'^CMD \["serve", "--host", "0\.0\.0\.0"\]$', last, re.MULTILINE)
    assert "args: [serve, --config, /etc/headrace/config.yaml]" in template
    assert "HEADRACE_CONFIG=/etc/headrace/config.yaml" in last
    settings = values["pipelineSettings"]
    assert (settings["host"], f"EXPOSE {settings['port']}\n" in last) == ("0.0.0.0", True)
    assert "/var/lib/headrace" in last
    assert "mountPath: /var/lib/headrace" in template


def test_pods_are_scaled_by_metrics_that_exist_and_that_the_adapter_makes() -> None:
    rules = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    made = [re.fullmatch(r'(\w+)\{namespace!="",pod!=""\}', rule["seriesQuery"]) for rule in rules]
    names = [one[1] for one in made if one is not None]
    scaled_by = re.findall(r"metric: \{name: (\w+)\}", (CHART / "templates" / "hpa.yaml").read_text())
    assert names == scaled_by
    assert set(names) <= {family.name for family in FAMILIES}
