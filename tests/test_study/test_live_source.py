"""The commands read a running service in place of a recording."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from kit.study.made import request_line

from pipeline.gateway.cli import main
from pipeline.study import live

KEY = "sk-the-master-key-0123456789"
LINES = [json.dumps(request_line(f"r-{at}", head_ms=50 + 10 * at)).encode() for at in range(7)]
RUNNING = [
    {"request_id": "n-1", "age_ms": 900.0, "idle_ms": 20.0, "model": "m", "waits_for": "ours", "stage": "look_up"},
    {
        "request_id": "n-2",
        "age_ms": 4100.0,
        "idle_ms": 3900.0,
        "model": "m",
        "deployment": "d",
        "events": 0,
        "waits_for": "upstream",
        "point": "upstream_sent",
    },
]
NOW: dict[str, Any] = {}


class Handler(BaseHTTPRequestHandler):
    """Answers as the service does, three lines at a time."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if self.headers["authorization"] != f"Bearer {KEY}":
            self.send_error(401)
        elif address.path == "/latency/now":
            self.answer(json.dumps(NOW).encode())
        elif address.path == "/latency/running":
            self.answer(json.dumps(RUNNING).encode())
        else:
            at = int(parse_qs(address.query).get("after", ["0"])[0] or 0)
            more = {"x-headrace-more": "1"} if at + 3 < len(LINES) else {}
            self.answer(b"\n".join(LINES[at : at + 3]), **{"x-headrace-cursor": str(at + 3), **more})

    def answer(self, body: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("HEADRACE_MASTER_KEY", KEY)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_all_that_the_service_remembers_is_read(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--url", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["requests"] == len(LINES)
    assert main(["why", "--slowest", "--url", url]) == 0
    assert capsys.readouterr().out.startswith("request r-6")
    assert main(["why", "r-5", "--url", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["culprit"]["ms"] == pytest.approx(100, abs=10)
    assert main(["stalls", "--url", url]) == 0


def test_running_requests_are_explained_the_longest_wait_first(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "--now", "--url", url]) == 0
    first, *_ = "".join(capsys.readouterr().out).partition("\nrequest n-1")
    assert first.replace("\n", " ") == (
        "request n-2 (model m) has run for 4100 ms; it has waited for the upstream (deployment d) for 3900 ms, for the "
        "head of the answer."
    )
    assert main(["why", "--now", "--url", url, "--json"]) == 0
    assert [row["request_id"] for row in json.loads(capsys.readouterr().out)] == ["n-1", "n-2"]


@pytest.mark.parametrize(("as_of_ms", "is_said"), [(900.0, False), (2000.0, False), (3100.0, True)])
def test_what_a_worker_has_said_a_while_ago_is_not_shown_as_current(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_of_ms: float, is_said: bool
) -> None:
    monkeypatch.setattr(f"{__name__}.RUNNING", [{**RUNNING[1], "as_of_ms": as_of_ms}])
    assert main(["why", "--now", "--url", url]) == 0
    assert ("(as of 3 s ago" in " ".join(capsys.readouterr().out.split())) == is_said


def test_a_worker_that_does_not_say_what_it_does_is_named(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "NOTICED_WITHIN_S", 0.01)
    monkeypatch.setitem(NOW, "is_watched", False)
    silent = {"worker": 2, "pid": 7, "alive": True, "in_flight": 3, "is_silent": True}
    monkeypatch.setitem(NOW, "workers", [{"worker": 1, "is_silent": False}, silent])
    monkeypatch.setattr(f"{__name__}.RUNNING", [])
    assert main(["why", "--now", "--url", url]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (
        "",
        "headrace: worker 2 (process 7) does not say what it does, with 3 requests in flight: something holds its "
        "loop, or it is stopped\n",
    )
    silent["in_flight"] = 1
    assert main(["why", "--now", "--url", url]) == 0
    assert "with 1 request in flight: " in capsys.readouterr().err
    monkeypatch.setitem(NOW, "workers", [])
    assert main(["why", "--now", "--url", url]) == 0
    assert capsys.readouterr().out == "No request runs now.\n"


def test_an_id_that_a_service_does_not_know_is_not_at_its_address(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "nobody", "--url", url]) == 2
    assert capsys.readouterr().err == f"headrace: no request with the id 'nobody' is at {url}\n"


def test_a_terminal_obeys_nothing_that_a_client_has_chosen(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "m\x1b]0;owned\x07\x9b2J"
    monkeypatch.setattr(f"{__name__}.RUNNING", [{**RUNNING[0], "model": evil}])
    monkeypatch.setattr(f"{__name__}.LINES", [json.dumps(request_line("r-1", model=evil)).encode()])
    for arguments in (["why", "--now"], ["why", "--slowest"], ["report"], ["why", "r-9\x1b[2J"]):
        main([*arguments, "--url", url])
        shown = capsys.readouterr()
        lines = (shown.out + shown.err).splitlines()
        assert all(line.isprintable() for line in lines), lines
        assert ("m?]0;owned??2J" in shown.out) == (arguments[0] == "why" and arguments[1].startswith("--"))


def test_a_wrong_key_and_a_wrong_command_line_say_so(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--url", url, "--key", "sk-wrong"]) == 2
    assert "refuses the key" in capsys.readouterr().err
    for arguments in (["report"], ["report", "f", "--url", url], ["why", "--now"], ["why", "--url", url]):
        assert main(arguments) == 2
        assert "--url" in capsys.readouterr().err
