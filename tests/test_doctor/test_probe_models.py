"""The models that doctor asks for: timed, free, bounded, and for the master key alone."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.service.running import routed, serving

from stages.upstreams.canned.probes import MAX_PROBE_BYTES, MAX_PROBE_S, MAX_PROBE_TOKENS, is_probe, probe_deployment
from stages.upstreams.canned.timing import parse_timing

LIMITED = "sk-limited-key-0123456789"
MODEL = "headrace-doctor:tokens=3;gap=1ms"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": True}


async def test_the_master_key_gets_an_answer_by_the_script_and_routing_learns_nothing() -> None:
    async with serving(pipeline="  restore_reasoning: false") as service:
        before = (await service.get("/health")).json()
        answer = await service.post(BODY)
        assert answer.text.count("xxxxx") == 3
        assert answer.text.endswith("data: [DONE]\n\n")
        assert (await service.record())["deployment"] == "headrace-doctor"
        after = (await service.get("/health")).json()
        assert after == before
        listed = (await service.get("/cursor/models")).json()["data"]
        assert not any("doctor" in model["id"] for model in listed)
        assert len(service.app.deployments.router.health) == 3


ALL = "sk-key-for-all-models-0123456789"
OTHER_KEYS = f"""\
    - {{name: all, key: {ALL}}}
    - {{name: probes, key: sk-key-for-probes-0123456789, models: ["headrace-doctor*"]}}
  allow_anonymous: true
"""


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        (LIMITED, 403, "model_forbidden"),
        (ALL, 404, "model_not_found"),
        ("sk-key-for-probes-0123456789", 404, "model_not_found"),
        (None, 404, "model_not_found"),
        ("sk-not-a-key-0123456789", 401, "unauthorized"),
    ],
)
async def test_no_other_key_gets_one_whatever_models_it_may_use(key: str | None, status: int, code: str) -> None:
    path = "/openai/deployments/headrace-doctor%3Atokens=2/chat/completions"
    async with serving(pipeline=OTHER_KEYS) as service:
        for answer in (
            await service.post(BODY, key=key, user_agent="test"),
            await service.post({"messages": BODY["messages"]}, key=key, path=path, user_agent="test"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        page = await service.get("/cursor/doctor", key=key)
        assert page.status_code == (401 if status == 401 else 403)


@pytest.mark.parametrize("model", [MODEL, "fast", "headrace-doctor-high", "any-headrace-doctor:tokens=2"])
async def test_an_alias_or_a_wildcard_leads_another_key_to_configured_models_only(model: str) -> None:
    config = routed("{model_group_alias: {fast: 'headrace-doctor:tokens=2'}}")
    async with serving(
        "  - {model_name: '*', litellm_params: {model: canned/echo}}", OTHER_KEYS, config=config
    ) as service:
        answer = await service.post({**BODY, "model": model}, key=ALL)
        record = await service.record()
    assert answer.status_code == 200
    assert "Hello" in answer.text
    assert record["deployment"] != "headrace-doctor"


async def test_no_fallback_and_no_alias_leads_to_another_deployment() -> None:
    settings = "{model_group_alias: {'headrace-doctor:fail=1;tokens=2': story}, fallbacks: [{'*': [story]}]}"
    async with serving(config=routed(settings)) as service:
        answer = await service.post({**BODY, "model": "headrace-doctor:tokens=2;fail=1"})
        record = await service.record()
    assert record["deployment"] == "headrace-doctor"
    assert not record.get("fallback")
    assert "mill" not in answer.text


async def test_the_paths_of_azure_lead_to_it() -> None:
    async with serving() as service:
        answer = await service.post(
            {"messages": BODY["messages"]}, path="/openai/deployments/headrace-doctor%3Atokens=2/chat/completions"
        )
    assert answer.json()["choices"][0]["message"]["content"] == "xxxxx xxxxx"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("first=601s", "the answer would take 601 s: write at most 600 s"),
        ("tokens=1001", "too long"),
        ("tokens=1000;bytes=66", "too long"),
        ("speed=1", "'speed' is not known"),
    ],
)
async def test_a_script_that_is_too_long_or_invalid_is_a_model_that_does_not_exist(script: str, why: str) -> None:
    async with serving() as service:
        answer = await service.post({**BODY, "model": f"headrace-doctor:{script}"}, user_agent="test")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["code"] == "model_not_found"
    assert why in error["message"]


ITEMS = st.builds(
    "{}={}{}".format,
    st.sampled_from(["head", "first", "gap", "tokens", "bytes", "stall", "fail"]),
    st.integers(0, 3_000),
    st.sampled_from(["", "ms", "s", "s@2", "ms@1000"]),
)


@given(st.lists(ITEMS, max_size=5).map(";".join))
def test_whatever_is_asked_for_is_bounded(script: str) -> None:
    model = f"headrace-doctor:{script}"
    assert is_probe(model)
    with suppress(ValueError):
        timing = parse_timing(probe_deployment(model).model)
        assert timing.whole_s <= MAX_PROBE_S
        assert timing.tokens <= MAX_PROBE_TOKENS
        assert timing.tokens * timing.token_bytes <= MAX_PROBE_BYTES


async def test_the_page_says_how_a_request_has_arrived_to_the_master_key() -> None:
    async with serving(pipeline="  forwarded_allow_ips: [127.0.0.1]\n  keep_alive_interval_s: 7") as service:
        for path in ("/cursor/doctor", "/doctor", "/v1/doctor", "/cursor//doctor"):
            page = (await service.get(path, x_forwarded_for="203.0.113.1", x_secret="value")).json()
            assert page["http_version"] == "1.1"
            assert {"authorization", "x-forwarded-for", "x-secret"} <= set(page["headers"])
            assert "value" not in json.dumps(page)
            assert page["is_peer_trusted"] is True
            assert page["keep_alive_interval_s"] == 7
        refused = await service.get("/cursor/doctor", key=LIMITED)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "master_key_required")
        assert (await service.get("/cursor/doctor", key="sk-wrong")).status_code == 401
