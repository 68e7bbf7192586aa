"""Processes of our own that live on between measurements, and do what each line of JSON on their stdin orders."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import msgspec

from benchmarks.processes import ROOT, at_start, end

PATIENCE_S = 120.0


class Child:
    """A process that obeys orders, one line of JSON each, until it is ended."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Any) -> None:
        self.process = process
        self._errors = errors

    def order(self, order: object) -> None:
        """Send an order."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `reply` says why
            self.process.stdin.write(msgspec.json.encode(order) + b"\n")
            self.process.stdin.flush()

    def reply(self, patience_s: float = PATIENCE_S) -> Any:
        """Wait for the reply to an order, and return it.

        Raises:
            RuntimeError: if there is none in time; the message has the end of what the process printed.
        """
        assert self.process.stdout is not None
        is_ready, _, _ = select.select([self.process.stdout], [], [], patience_s)
        line = self.process.stdout.readline() if is_ready else b""
        if not line:
            self._errors.seek(0)
            printed = self._errors.read()[-2000:].decode(errors="replace")
            raise RuntimeError(f"{self.process.args!r} did not reply; it printed:\n{printed}")
        return msgspec.json.decode(line)


@contextlib.contextmanager
def open_child(
    command: Sequence[str], cores: Sequence[int] = (), environ: Mapping[str, str] | None = None
) -> Generator[Child]:
    """Run a program that calls `serve_orders`, for the duration of a block."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
            preexec_fn=at_start(cores),
        )
        try:
            yield Child(process, errors)
        finally:
            end(process)
            for pipe in filter(None, (process.stdin, process.stdout)):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def serve_orders(reply: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Reply to each order on stdin, until it ends."""
    for line in sys.stdin.buffer:
        answer = msgspec.json.encode(reply(msgspec.json.decode(line)))
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()
