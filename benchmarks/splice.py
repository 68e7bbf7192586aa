"""A proxy that copies bytes both ways without looking at them: the limit of what a gateway on trio can reach.

Run: ``python -m benchmarks.splice --port 4001 --upstream 9100``.
"""

from __future__ import annotations

import argparse
from functools import partial

import trio

from benchmarks.processes import raise_descriptor_limit


async def copy(source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Copy until one side ends, then end the other direction too."""
    try:
        while data := await source.receive_some(65536):
            await target.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel()


async def splice(client: trio.SocketStream, *, upstream_port: int) -> None:
    """Serve one client."""
    try:
        upstream = await trio.open_tcp_stream("127.0.0.1", upstream_port)
    except OSError:
        return
    async with upstream, trio.open_nursery() as nursery:
        nursery.start_soon(copy, client, upstream, nursery.cancel_scope)
        nursery.start_soon(copy, upstream, client, nursery.cancel_scope)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="A proxy that copies bytes.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True)
    options = parser.parse_args()
    raise_descriptor_limit()
    serve = partial(splice, upstream_port=options.upstream)
    trio.run(partial(trio.serve_tcp, serve, options.port, host="127.0.0.1", backlog=4096))


if __name__ == "__main__":
    main()
