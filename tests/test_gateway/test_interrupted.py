"""Ctrl-C ends each command without a traceback, whatever it does; in a container, so does SIGTERM. Real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit.needs import PROCESS_ONE, ROOT, needs
from kit.study.made import varied_lines, written
from kit.time.patience import PROCESSES_S

from pipeline.gateway.cli import INTERRUPTED

pytestmark = pytest.mark.timeout(300)


@contextmanager
def running(*arguments: str, within: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """Run a command, by the command ``within`` if there is one, that is interrupted in the block, and ends then."""
    command = [*within, sys.executable, "-m", "pipeline.gateway", *arguments]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def interrupted(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Interrupt it; return its status, and what it has written to stderr."""
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PROCESSES_S)
    return process.returncode, said


@pytest.mark.parametrize("words", [["report"], ["why", "--slowest"], ["compare", "FILE"], ["budget", "BUDGETS"]])
def test_a_command_that_reads_a_file(tmp_path: Path, words: list[str]) -> None:
    pipe, file, budgets = tmp_path / "pipe", tmp_path / "a.jsonl", tmp_path / "budgets.toml"
    os.mkfifo(pipe)
    written(file, varied_lines(3, 1))
    budgets.write_text('[limits]\n"total_ms.p50" = 1')
    names = {"FILE": str(file), "BUDGETS": str(budgets)}
    with running(*[names.get(word, word) for word in words], str(pipe)) as process, pipe.open("w"):  # it has opened it
        assert interrupted(process) == (INTERRUPTED, "")


@pytest.mark.parametrize("words", [["why", "--now"], ["why", "--slowest"], ["top"]])
def test_a_command_that_waits_for_a_service(words: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with running(*words, "--url", url, "--key", "k") as process:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(1)  # it has asked, and is not answered
                assert interrupted(process) == (INTERRUPTED, "")


def test_a_situation_that_is_interrupted_twice_ends_as_after_one(tmp_path: Path) -> None:
    recording = tmp_path / "a.jsonl"
    with running("situation", "slow-head", "--keep-serving", "--record", str(recording)) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("slow-head: ")
        process.send_signal(signal.SIGINT)
        assert interrupted(process) == (0, "")


@needs(PROCESS_ONE)
def test_a_command_that_is_process_one_and_gets_sigterm(tmp_path: Path) -> None:
    """The kernel does not end process 1 for a signal that it has no handler for."""
    pipe = tmp_path / "config.yaml"
    os.mkfifo(pipe)
    as_process_one = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    with running("check-config", str(pipe), within=as_process_one) as process, pipe.open("w"):  # it has opened it
        [process_one] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(process_one), signal.SIGTERM)
        _, said = process.communicate(timeout=PROCESSES_S)
        assert (process.returncode, said) == (128 + signal.SIGTERM, "")
