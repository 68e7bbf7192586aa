"""No credential leaves the service: one for each place where foreign text is shown."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.clients.chat_fold import fold_stream
from kit.clients.chat_posts import CURSOR, OPENAI_LIKE, ask, begun, failed_event
from kit.service.running import model, serving
from kit.upstreams.scripted import end, event, json_answer, scripted_upstream

from pipeline.gateway.logs import configure_logging

TOKEN = "github_pat_11ABCDEFG0aB3dE5fG7hJ9kL2mN4pQ6rS8tU0vW1xY3zA5"
OWN = "my-own-plain-SECRET-key"
"""What an upstream gets in a header of its deployment; only the deployment tells that it is a secret."""


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    """Log to a file, and restore logging afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    path = tmp_path / "log"
    with path.open("ab") as file:
        configure_logging("json", "info", fd=file.fileno())
        yield path
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.mark.parametrize("agent", [OPENAI_LIKE, CURSOR])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_is_shown_without_the_credential_that_it_quotes(agent: str, stream: bool) -> None:
    refusal = json_answer({"error": {"message": f"no access for {TOKEN} or {OWN}", "param": OWN}}, 403)
    async with scripted_upstream(refusal) as up:
        async with serving(model("up", up.url, extra_headers={"x-team": OWN})) as service:
            answer = await service.post(ask(stream=stream), user_agent=agent)
    error = json.loads(answer.content)["error"]
    assert error["message"].endswith("answered 403: no access for [redacted] or [redacted]")
    assert TOKEN not in answer.text
    assert OWN not in answer.text
    assert up.requests[0].headers["x-team"] == OWN


@pytest.mark.parametrize("agent", [OPENAI_LIKE, CURSOR])
async def test_a_failure_within_a_stream_is_shown_without_the_deployments_own_secret(agent: str) -> None:
    failure = event(failed_event("server_error", f"no access for {OWN} or {TOKEN}"))
    async with scripted_upstream(*begun("Hello"), failure, end()) as up:
        async with serving(model("up", up.url, extra_headers={"x-team": OWN})) as service:
            answer = await service.post(ask(), user_agent=agent)
            whole = await service.post(ask(stream=False), user_agent=agent)
    folded = fold_stream(answer.content)
    shown = folded.content if agent == CURSOR else folded.error and folded.error["message"]
    assert shown is not None
    assert "no access for [redacted] or [redacted]" in shown
    assert "no access for [redacted] or [redacted]" in json.loads(whole.content)["error"]["message"]
    for text in (answer.text, whole.text):
        assert OWN not in text
        assert TOKEN not in text


async def test_a_credential_that_a_client_sends_as_a_name_is_not_logged(log_file: Path) -> None:
    async with scripted_upstream(json_answer({"error": "no"}, 404)) as up:
        async with serving(model("team/*", up.url, upstream="openai/*")) as service:
            await service.post(ask(f"team/{TOKEN}"), x_request_id=TOKEN)
            record = await service.record(0)
    assert (record["model"], record["request_id"]) == ("team/[redacted]", "[redacted]")
    assert record["error"] == "upstream_not_found"
    assert TOKEN not in json.dumps(record)
    assert TOKEN not in log_file.read_text()
