"""Answer a request that the same key has sent before from a file, with the same events and the same usage.

Only complete answers are stored. There are at most ``max_files`` files of at most ``max_file_bytes``: the digest of a
request chooses its file, and the answer that was there before is replaced.
Holds: the events of an answer until it is stored. Waits: for the file system (declared).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path

import msgspec
import trio

from pipeline import Host, Plugin
from stages.answer import Answer, Next
from stages.events import Finished, StreamEvent
from stages.slots import PRINCIPAL
from stages.upstreams import UpstreamCall


class Cache(msgspec.Struct, frozen=True):
    """The options, and what stands around the call."""

    folder: str
    max_files: int = 1_000
    max_file_bytes: int = 1_000_000
    name = "cache"

    @asynccontextmanager
    async def call(self, call: UpstreamCall, next: Next, /) -> AsyncIterator[Answer]:
        asked = [next.ctx[PRINCIPAL].name, call.deployment.model_name, call.model, call.request.body]
        with next.outside():
            file, digest, events = await trio.to_thread.run_sync(self.find, asked)
        if events:
            yield Answer.of_events(call, events)
            return

        def note(batch: list[StreamEvent]) -> list[StreamEvent]:
            events.extend(batch)
            return batch

        async with next(call) as answer:
            yield answer.changed(note)
        if events and isinstance(events[-1], Finished):
            with next.outside(), suppress(OSError):
                await trio.to_thread.run_sync(self.keep, file, digest, events)

    def find(self, asked: object) -> tuple[Path, str, list[StreamEvent]]:
        """Return the file for a request, its digest and its answer; a file that is only half written has none."""
        digest = sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest()
        file = Path(self.folder, f"{int(digest, 16) % self.max_files}.json")
        with suppress(OSError, msgspec.DecodeError, KeyError):
            return file, digest, msgspec.json.decode(file.read_bytes(), type=dict[str, list[StreamEvent]])[digest]
        return file, digest, []

    def keep(self, file: Path, digest: str, events: list[StreamEvent]) -> None:
        """Store an answer, unless it is too large."""
        if len(data := msgspec.json.encode({digest: events})) <= self.max_file_bytes:
            file.write_bytes(data)


@asynccontextmanager
async def cache(options: Cache, host: Host) -> AsyncIterator[Cache]:
    """Answer a request that the same key has sent before from a file."""
    await trio.Path(options.folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    yield options


plugin = Plugin("cache", serve=cache, options=Cache, kind="around")
