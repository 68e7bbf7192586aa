"""What ``headrace serve`` says when it is ready: for people on a terminal, as one record elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from kit.service.command import configured, headrace_serve
from kit.service.terminal import on_a_terminal

from pipeline.gateway.banner import banner_lines, banner_of, local_url
from pipeline.gateway.config.load import parse_settings
from pipeline.gateway.logs import PLAIN

pytestmark = pytest.mark.timeout(300)  # processes

ECHO = "  - {model_name: my-echo, litellm_params: {model: canned/echo}}\n"
KEY = "sk-banner-test-0123456789abcdef"
OF_KEY = f"general_settings: {{master_key: {KEY}}}\n"


def shown(text: str, port: int = 4000) -> str:
    """Return what people see of a configuration."""
    settings = parse_settings(text, source="config.yaml", environ={})
    return "\n".join(banner_lines(banner_of(settings, port), PLAIN))


def test_it_names_the_file_the_models_the_addresses_and_what_to_click() -> None:
    said = shown(f"model_list:\n{ECHO}{ECHO}{OF_KEY}")
    assert said.startswith("headrace is ready\n  config    config.yaml\n  models    1: my-echo\n")
    assert "  SDKs      http://127.0.0.1:4000/v1\n" in said
    assert "  latency   http://127.0.0.1:4000/latency " in said
    assert "  OpenAI API Key            the master key" in said
    assert "  Override OpenAI Base URL  https://YOUR-HOST/cursor\n" in said
    assert "  Add custom model          my-echo\n" in said
    assert "Azure OpenAI, with Base URL https://YOUR-HOST, " in said
    assert "Deployment Name one of these models, such as my-echo.\n" in said
    assert "warnings" not in said
    assert KEY not in said


def test_the_first_ten_models_are_named_and_wildcards_are_not_to_be_clicked() -> None:
    models = "".join(ECHO.replace("my-echo", f"m{number}") for number in range(11))
    wildcard = "  - {model_name: 'x/*', litellm_params: {model: 'openai/*', api_key: sk-x}}\n"
    said = shown(f"model_list:\n{wildcard}{models}{OF_KEY}")
    assert "  models    12: x/*, m0, m1, m2, m3, m4, m5, m6, m7, m8 and 2 more\n" in said
    assert re.search(r"Add custom model +m0, m1, m2, m3, m4, m5, m6, m7, m8\n", said)


def test_warnings_are_counted_with_the_command_that_shows_them() -> None:
    left_out = "  - {model_name: other, litellm_params: {model: nobody/knows}}\n"
    said = shown(f"model_list:\n{ECHO}{left_out}{OF_KEY}litellm_settings: {{cache: true}}\n")
    assert re.search(r"  warnings  2 warnings, 1 about models that are left out: .* check-config config\.yaml\n", said)


def test_without_keys_any_text_will_do() -> None:
    said = shown(f"model_list:\n{ECHO}pipeline_settings: {{allow_anonymous: true, host: '::1'}}\n")
    assert "  OpenAI API Key            any text, since requests need no key\n" in said
    assert "/latency" not in said  # it needs the master key
    assert "http://[::1]:4000/v1" in said


def test_an_address_is_one_by_which_this_machine_reaches_it() -> None:
    assert local_url("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert local_url("example.com", 443, is_tls=True) == "https://example.com:443"


async def test_in_the_json_log_it_is_one_record_once_all_workers_serve(tmp_path: Path) -> None:
    async with headrace_serve(tmp_path, configured(ECHO), workers=2) as command:
        await command.logged(b'"event":"serving"')
        command.process.send_signal(10)  # SIGUSR1
        await command.logged(b"restarted: 2 workers replaced")
        log = command.log
    assert log.count(b'"event":"serving"') == 1
    assert log.count(b"is up after", 0, log.index(b'"event":"serving"')) == 2
    record = json.loads(next(line for line in log.splitlines() if b'"event":"serving"' in line))
    assert record["config"] == str(tmp_path / "config.yaml")
    assert (record["models"], record["model_count"], record["workers"]) == (["my-echo"], 1, 2)
    assert record["sdk_base_url"] == f"http://127.0.0.1:{command.port}/v1"
    assert b"sk-" not in log


def test_on_a_terminal_it_is_text_with_colour_and_a_flag_makes_it_json(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(configured(ECHO))
    status, said = on_a_terminal(["serve"], folder=tmp_path, until="checks that.")
    assert status == 0, said
    assert "\x1b[1mheadrace is ready\x1b[0m\n" in said
    status, said = on_a_terminal(["serve", "--log-format", "json"], folder=tmp_path, until='"event":"serving"')
    assert status == 0, said
    assert all(json.loads(line) for line in said.splitlines() if line != "^C")
