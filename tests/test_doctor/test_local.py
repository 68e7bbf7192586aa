"""The local checks: the configuration, keys, the machine, and scripted upstreams."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from kit.service.certificates import issue
from kit.service.config_texts import parse
from kit.service.running import model, serving
from kit.upstreams.scripted import Script, end, error, event, scripted_upstream, sse_head

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.settings import PipelineSettings
from pipeline.gateway.doctor.configuration import LOCAL, examine_configuration, judge_keys
from pipeline.gateway.doctor.findings import Finding
from pipeline.gateway.doctor.machine import judge_files, judge_memory, judge_workers, see_disk, see_port
from pipeline.gateway.doctor.upstreams import judge_clock

CHAT: Script = [
    sse_head(),
    event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "finish_reason": None}]}),
    event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
    event(b"[DONE]"),
    end(),
]
MASTER = "sk-master-0123456789abcdef"


async def found_in(folder: Path, text: str, *, offline: bool = False) -> list[Finding]:
    file = folder / "config.yaml"
    file.write_text(text)
    findings: list[Finding] = []
    await examine_configuration(str(file), findings.append, offline=offline, is_asked=True)
    assert set(LOCAL) == {finding.check for finding in findings}
    return findings


def text_of(models: str, own: str = "port: 0") -> str:
    return f"model_list:\n{models}general_settings: {{master_key: {MASTER}}}\npipeline_settings: {{{own}}}\n"


async def test_each_deployment_is_asked_and_each_failure_has_its_remedy(tmp_path: Path) -> None:
    def by_chat(name: str, url: str) -> str:
        return model(name, f"{url}/v1", use_chat_completions_api=True)

    async with (
        scripted_upstream(*CHAT) as good,
        scripted_upstream(error(401, b'{"error": {"message": "bad key sk-upstream-secret-0123456789"}}')) as bad_key,
        scripted_upstream(error(404, b'{"error": {"message": "model gpt-5 does not exist"}}')) as no_model,
    ):
        models = by_chat("good", good.url) + by_chat("bad-key", bad_key.url)
        models += by_chat("no-model", no_model.url) + model("any/*", good.url, upstream="openai/*")
        models += by_chat("gone", "http://127.0.0.1:1")
        models += "  - {model_name: token, litellm_params: {model: openai/gpt-5, token_command: echo, "
        models += f"api_base: {good.url}/v1}}}}\n"
        found = await found_in(tmp_path, text_of(models))
    by_model = {one.about.partition(" ")[0]: one for one in found if one.check == "model"}
    assert by_model["good"].status == "ok"
    assert by_model["bad-key"].status == by_model["no-model"].status == by_model["gone"].status == "problem"
    assert "replace its api_key" in by_model["bad-key"].remedy
    assert "correct its model" in by_model["no-model"].remedy
    assert "correct its api_base" in by_model["gone"].remedy
    assert by_model["any/*"].status == by_model["token"].status == "not tested"
    assert not any("secret" in one.measured for one in found)
    hosts = {one.about: one.status for one in found if one.check == "upstream"}
    assert hosts["127.0.0.1:1"] == "problem"
    assert len(hosts) == 4


async def test_an_upstream_with_tls_shows_its_certificate_and_its_clock(tmp_path: Path) -> None:
    certificate = issue(tmp_path)
    async with serving(certificate=certificate) as service:
        url = f"{service.url}/v1"
        models = model("trusted", url, upstream="openai/echo", use_chat_completions_api=True)
        unknown = await found_in(tmp_path, text_of(models))
        known = await found_in(tmp_path, text_of(models, "port: 0, ca_file: ca.pem"))
    (host,) = [one for one in unknown if one.check == "upstream"]
    assert "certificate is not accepted" in host.measured
    (host,) = [one for one in known if one.check == "upstream"]
    assert host.status == "ok"
    assert "certificate until" in host.measured
    (clock,) = [one for one in known if one.check == "clock"]
    assert clock.status == "ok"


async def test_offline_asks_nobody(tmp_path: Path) -> None:
    async with scripted_upstream(*CHAT) as upstream:
        found = await found_in(tmp_path, text_of(model("m", upstream.url)), offline=True)
        assert upstream.requests == []
    untold = {one.check for one in found if one.status == "not tested"}
    assert untold == {"upstream", "clock", "model"}


async def test_a_configuration_that_cannot_be_used_is_the_only_finding(tmp_path: Path) -> None:
    found = await found_in(tmp_path, "model_list: 5\npipeline_settings: {prot: 1}\n")
    assert {one.check for one in found if one.status == "problem"} == {"configuration"}
    assert {one.status for one in found if one.check != "configuration"} == {"not tested"}


async def test_without_a_configuration_only_a_url_can_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADRACE_CONFIG", raising=False)
    found: list[Finding] = []
    assert await examine_configuration(None, found.append, offline=False, is_asked=False) is None
    assert [one.status for one in found] == ["not tested"]
    with pytest.raises(CommandError):
        await examine_configuration(None, found.append, offline=False, is_asked=True)


CONFIG = "model_list: [{model_name: m, litellm_params: {model: canned/echo}}]\n"


@pytest.mark.parametrize(
    ("text", "environ", "status", "words"),
    [
        ("", {}, "ok", "a master key and 0 other keys"),
        ("general_settings: {master_key: sk-1234}", {}, "problem", "master: can be guessed"),
        ("general_settings: {master_key: short-key}", {}, "problem", "shorter than 20 characters"),
        (
            "pipeline_settings: {keys: [{name: team, key: sk-1234}]}",
            {},
            "problem",
            "team: can be guessed, being those of examples",
        ),
        ("pipeline_settings: {allow_anonymous: true}", {"HEADRACE_MASTER_KEY": ""}, "warning", "there is none"),
        (
            "pipeline_settings: {keys: [{name: team, key: sk-a-good-key-0123456789}]}",
            {"HEADRACE_MASTER_KEY": ""},
            "warning",
            "there is no master key",
        ),
    ],
)
def test_keys_that_are_missing_or_can_be_guessed(text: str, environ: dict[str, str], status: str, words: str) -> None:
    found = list(judge_keys(parse(CONFIG + text, **environ)))
    assert found[0].status == status
    assert words in found[0].measured
    assert "sk-1234" not in repr(found)


def test_descriptors_workers_and_memory() -> None:
    assert judge_files(1000, 2064).status == "ok"
    assert judge_files(1000, 2063).status == "warning"
    assert judge_files(1000, -1).status == "ok"
    assert judge_workers(2, 2).status == judge_workers(1, 8).status == "ok"
    assert judge_workers(3, 2).status == "warning"
    own = PipelineSettings(workers=2, max_upload_mb_total=300)
    assert judge_memory(own, 2 * 1024**3).status == "ok"
    assert judge_memory(own, 512 * 1024**2).status == "warning"
    assert judge_memory(own, None).status == "ok"


async def test_a_port_that_is_free_or_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = await see_port(PipelineSettings(host="127.0.0.1", port=port), limit_s=0.1)
        assert (found.status, "not headrace" in found.measured) == ("problem", True)
    free = await see_port(PipelineSettings(host="127.0.0.1", port=port))
    assert "is free" in free.measured
    assert (await see_port(PipelineSettings(host="192.0.2.1", port=port))).status == "problem"
    assert (await see_port(PipelineSettings(port=0))).status == "ok"
    async with serving() as service:
        ours = await see_port(PipelineSettings(host="127.0.0.1", port=service.port))
    assert ours.measured.startswith("headrace answers")


def test_the_folder_of_the_store(tmp_path: Path) -> None:
    own = PipelineSettings(reasoning_store="sqlite", reasoning_store_file=str(tmp_path / "r.sqlite"))
    assert see_disk(own).status == "ok"
    assert see_disk(PipelineSettings()).status == "ok"
    much = PipelineSettings(
        reasoning_store="sqlite", reasoning_store_file=str(tmp_path / "r.sqlite"), reasoning_max_mb=1e6
    )
    assert see_disk(much).status in ("ok", "warning")
    gone = PipelineSettings(reasoning_store="sqlite", reasoning_store_file=str(tmp_path / "gone" / "r.sqlite"))
    assert not os.path.exists(tmp_path / "gone")
    assert see_disk(gone).status == "problem"


def test_the_clock_of_most_upstreams_counts() -> None:
    assert judge_clock([]).status == "not tested"
    assert judge_clock([("a", -0.4)]).status == "ok"
    assert judge_clock([("a", 0.2), ("b", 300.0), ("c", 0.6)]).status == "ok"
    behind = judge_clock([("a", 30.0)])
    assert (behind.status, behind.measured) == ("warning", "30 s behind a")
    assert judge_clock([("a", -30.0)]).measured == "30 s ahead of a"
