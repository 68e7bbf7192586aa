"""A worker with `KEYS` keys that may have `RPM` requests a minute each: ``limited_program.py COUNTS_FD``.

It serves on a port of its own, which it prints, until its input ends.
"""

from __future__ import annotations

import os
import sys

import trio
from kit.service.limited_keys import limited_key
from msgspec.structs import replace

from pipeline.gateway.app import Application
from pipeline.gateway.config.load import parse_settings
from pipeline.gateway.failures import refusal
from pipeline.gateway.http.server import hypercorn_config, serve
from pipeline.gateway.http.sockets import bind_socket
from pipeline.gateway.service import server_settings
from stages.admission.counts import Counts

KEYS = 50
RPM = 20
CONFIG = """\
model_list:
  - {model_name: echo, litellm_params: {model: canned/echo}}
general_settings: {master_key: sk-master-0123456789abcdef}
"""


async def main(counts_fd: int) -> None:
    settings = parse_settings(CONFIG, source="test.yaml", environ={})
    settings = replace(settings, keys=tuple(limited_key(f"key-{number}", rpm=RPM) for number in range(KEYS)))
    app = Application(settings, plugins={}, on_end=lambda record: None, counts=Counts(counts_fd))
    listener = bind_socket("127.0.0.1", 0)
    limits = server_settings(settings.pipeline)
    shutdown, hard_stop = trio.Event(), trio.Event()

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        await serve(
            app,
            hypercorn_config(limits),
            [listener],
            limits,
            make_refusal=refusal,
            shutdown=shutdown,
            hard_stop=hard_stop,
            on_shutdown=app.generations.drain,
            on_drain_deadline=app.generations.cut_off,
            task_status=task_status,
        )

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        os.write(1, b"%d\n" % listener.getsockname()[1])
        await trio.lowlevel.wait_readable(0)
        shutdown.set()
        hard_stop.set()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
