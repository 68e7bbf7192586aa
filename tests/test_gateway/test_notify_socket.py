"""What a service reports to its service manager, on real sockets."""

from __future__ import annotations

import logging
import signal
import time
import uuid
from pathlib import Path

import pytest
from kit.service.command import configured, headrace_serve
from kit.service.notified import notified

from pipeline.gateway.notify_socket import NotifySocket

ECHO = "  - {{model_name: {}, litellm_params: {{model: canned/echo}}}}\n"


@pytest.fixture(params=["a path", "an abstract name"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "a path" else f"@headrace-test-{uuid.uuid4()}"


def test_each_report_is_one_datagram_of_variables(address: str) -> None:
    with notified(address) as manager:
        notify = NotifySocket(address)
        notify.ready("2 models")
        before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notify.reloading()
        notify.reloaded("3 models")
        notify.stopping(140)
        ready, reloading, reloaded, stopping = manager.reports()
    assert ready == {"READY": "1", "STATUS": "2 models"}
    assert before_us <= int(reloading.pop("MONOTONIC_USEC")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert reloading == {"RELOADING": "1", "STATUS": "reloading"}
    assert reloaded == {"READY": "1", "STATUS": "3 models"}
    assert stopping == {"STOPPING": "1", "STATUS": "draining", "EXTEND_TIMEOUT_USEC": "150000000"}


def test_a_reload_before_all_workers_serve_does_not_make_the_service_ready(address: str) -> None:
    with notified(address) as manager:
        notify = NotifySocket(address)
        notify.reloading()
        notify.reloaded("2 models")
        assert manager.reports() == []


def test_a_service_that_stops_is_not_ready_again(address: str) -> None:
    with notified(address) as manager:
        notify = NotifySocket(address)
        notify.ready("2 models")
        notify.reloading()
        notify.stopping(1)
        notify.reloaded("2 models")
        notify.reloading()
        assert [next(iter(report)) for report in manager.reports()] == ["READY", "RELOADING", "STOPPING"]


def test_the_name_of_the_socket_is_taken_from_the_environment_so_that_no_child_has_it(address: str) -> None:
    environ = {"NOTIFY_SOCKET": address, "HOME": "/"}
    with notified(address) as manager:
        NotifySocket.take(environ).ready("")
        assert len(manager.reports()) == 1
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "relative"])
def test_without_a_socket_of_this_machine_nothing_happens(
    address: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    NotifySocket.take({} if address is None else {"NOTIFY_SOCKET": address}).ready("")
    assert caplog.records == []


def test_a_socket_that_is_gone_is_logged_and_nothing_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        NotifySocket(str(tmp_path / "gone")).ready("2 models")
        NotifySocket("/" + "x" * 200).stopping(1)
    assert [record.getMessage() for record in caplog.records] == [
        "the service manager does not get READY=1: No such file or directory",
        "the service manager does not get STOPPING=1: AF_UNIX path too long",
    ]


def test_a_service_manager_that_reads_nothing_holds_the_service_for_a_second_at_most(
    address: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.gateway.notify_socket.SEND_LIMIT_S", 0.01)
    with notified(address):
        notify = NotifySocket(address)
        while not caplog.records:  # until its queue is full
            notify.ready("")
    assert caplog.records[0].getMessage() == "the service manager does not get READY=1: timed out"


@pytest.mark.timeout(300)  # processes
async def test_a_service_reports_its_start_its_reloads_and_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token command, which would inherit the name of the socket from a worker, prints that it has none."""
    command = tmp_path / "token"
    command.write_text(f"#!/bin/sh\necho t-${{NOTIFY_SOCKET-unset}} | tee {tmp_path}/printed\n")
    command.chmod(0o700)
    token = f"  - {{model_name: up, litellm_params: {{model: openai/m, token_command: {command}}}}}\n"
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with notified(address) as manager:
        async with headrace_serve(tmp_path, configured(ECHO.format("one") + token), workers=2) as running:
            assert await manager.report() == {"READY": "1", "STATUS": "2 models, 2 workers"}
            assert (tmp_path / "printed").read_text() == "t-unset\n"

            running.config.write_text(configured(ECHO.format("one")))
            running.process.send_signal(signal.SIGHUP)
            assert (await manager.report())["RELOADING"] == "1"
            assert await manager.report() == {"READY": "1", "STATUS": "1 model, 2 workers"}

            running.config.write_text("model_list: 3\n")
            running.process.send_signal(signal.SIGHUP)
            assert (await manager.report())["RELOADING"] == "1"
            assert await manager.report() == {
                "READY": "1",
                "STATUS": "1 model, 2 workers; the last reload was refused, and the log says why",
            }

            running.process.send_signal(signal.SIGTERM)
            assert await manager.report() == {
                "STOPPING": "1",
                "STATUS": "draining",
                "EXTEND_TIMEOUT_USEC": "630000000",
            }
            assert await running.exit() == 0
        assert manager.reports() == []
