"""Answers of upstreams: decoded, encoded and written to the client, by the pipelines that the service has.

An input is the body of an upstream's answer; what was asked is drawn from its bytes. It becomes chunks that clients
can read, and an end that says that they are complete or why they are not.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

from fuzz.cutting import reads, seeded, spoiled
from fuzz.json_trees import encoded, mutated
from fuzz.served import BY_KIND, Service
from fuzz.target import DATA, Target
from jsonschema import ValidationError
from kit.clients.chat_fold import Folded, chunks_of, fold_document, fold_stream
from kit.schemas import validate_chunk, validate_completion
from kit.service.contexts import FakeResponse
from msgspec.structs import replace

from pipeline import RequestContext, UpstreamFault
from pipeline.gateway.failures import TABLE
from stages.request import ResponsesRequest
from stages.slots import FAILURE, PROFILE, RESPONSE
from stages.upstreams import UpstreamCall

SHARE_BY_SCHEMA: Final = 20
"""One answer in so many is compared with the schema too, which takes ten times as long as all the rest."""

_JUNK: Final = (
    *(
        b": ping\n\n",
        b"\n",
        b"\n\n\n",
        b"event: x\n",
        b"data:\n\n",
        b"data: \n\n",
        b"data\n\n",
        b"id: 7\n",
        b"retry: 1\n\n",
    ),
    *(
        b"data: [DONE]\n\n",
        b"data: {}\n\n",
        b"data: null\n\n",
        b"data: [",
        b"\r",
        b"\r\n\r\n",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\x00",
    ),
    *(
        b'data: {"error":{"message":"no","code":"x"}}\n\n',
        b'event: error\ndata: {"type":"error","error":{"type":"x"}}\n\n',
    ),
    *("\u2028".encode(), "\x85".encode(), b'{"a":1}\n', b"<html>", b"event: ping\ndata: {}\n\n", b"data: \xf0\x9f"),
)
_ENDS: Final = (b"\n", b"\n", b"\n", b"\r\n", b"\r")


class Streams(Target):
    """Answers of upstreams that speak one API."""

    def __init__(self) -> None:
        super().__init__()
        self._service = Service()
        self._frames = [frame for seed in self.seeds for frame in seed.split(b"\n\n") if frame]
        self._trees = [tree for _, tree in filter(None, map(_read, self._frames))]

    def recorded(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((DATA / "streams" / self.name).glob("*.sse"))]

    def mutated(self, data: bytes, rng: Random) -> bytes:
        frames = [frame for frame in data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n") if frame] or [
            b""
        ]
        for _ in range(rng.choice((1, 1, 2, 3, 5))):
            self._change(frames, rng)
        end = rng.choice(_ENDS)
        stream = b"".join(frame + b"\n\n" for frame in frames)
        if rng.random() < 0.1:
            stream = spoiled(stream, _JUNK, rng)
        return stream if end == b"\n" else stream.replace(b"\n", end)

    def _change(self, frames: list[bytes], rng: Random) -> None:
        at = rng.randrange(len(frames))
        match rng.randrange(12):
            case 0:
                del frames[at]
                frames[:] = frames or [b""]
            case 1:
                frames[at:at] = [frames[at]] * rng.choice((1, 1, 2, 300))
            case 2:
                other = rng.randrange(len(frames))
                frames[at], frames[other] = frames[other], frames[at]
            case 3 | 4:
                frames.insert(at, rng.choice(self._frames))
            case 5:
                frames.insert(at, rng.choice(_JUNK).strip(b"\n"))
            case 6:
                del frames[at + 1 :]
            case 7:
                other = rng.randrange(len(self._frames))
                frames[at:] = self._frames[other : other + rng.randrange(1, 9)]
            case _:
                if (found := _read(frames[at])) is not None:
                    prefix, tree = found
                    frames[at] = (
                        prefix + b"data: " + encoded(mutated(tree, self._trees, rng), rng).replace(b"\n", b"\ndata: ")
                    )

    async def outcome(self, data: bytes) -> str:
        rng = seeded(data)
        call = self._call(rng)
        seed = rng.random()
        whole = await self._answer(call, data, [data] if data else [], seed)
        cut = await self._answer(call, data, reads(data, rng), seed)
        assert cut == whole, f"it depends on how the bytes were cut: {cut} and {whole}"
        if call.request.stream and whole.is_done:
            return "complete" if whole.error is None else "told in the text"
        if whole.error is not None:
            return f"told as {whole.error.get('code')}"
        assert not call.request.stream
        return "document"

    def _call(self, rng: Random) -> UpstreamCall:
        deployment = rng.choice(BY_KIND[self.name])
        body: dict[str, Any] = {"input": "hi"}
        custom = frozenset({"ApplyPatch"}) if rng.random() < 0.5 else frozenset[str]()
        if custom:
            body["tools"] = [{"type": "custom", "name": "ApplyPatch"}]
        request = ResponsesRequest(
            requested_model="m",
            stream=rng.random() < 0.85,
            include_usage=rng.random() < 0.5,
            body=body,
            custom_tools=custom,
            wants_logprobs=rng.random() < 0.2,
        )
        return UpstreamCall(request=request, deployment=deployment, model=deployment.model)

    async def _answer(self, call: UpstreamCall, data: bytes, given: list[bytes], seed: float) -> Folded:
        """Return what the client gets, checked."""
        call = replace(call, request=replace(call.request, mended=set()))
        service = self._service
        rng = Random(seed)
        ctx = service.context(rng)
        try:
            response = await service.answered(call, ctx, given, is_stream=data.lstrip()[:1] != b"{")
        except UpstreamFault as fault:
            return _told(fault, ctx)
        assert response.status == 200
        assert response.ended
        is_checked = not rng.randrange(SHARE_BY_SCHEMA)
        if call.request.stream:
            folded = fold_stream(response.body)
            assert folded.is_done or folded.error is not None, "an end that says nothing"
            if ctx[PROFILE].failure_as_text and ctx.get(FAILURE) is not None and folded.is_done:
                folded.error = {"code": ctx[FAILURE].code}
            for chunk in chunks_of(response.body) if is_checked else ():
                if "error" not in chunk:
                    _by_schema(validate_chunk, chunk)
        else:
            folded = fold_document(response.body)
            if is_checked:
                _by_schema(validate_completion, json.loads(response.body))
        response.body.decode("utf-8")
        return folded


def _by_schema(validate: Any, value: Any) -> None:
    try:
        validate(value)
    except ValidationError as error:
        raise AssertionError(f"not by the schema: {error.message[:300]}") from None


def _told(fault: UpstreamFault, ctx: RequestContext) -> Folded:
    response = ctx[RESPONSE]
    assert isinstance(response, FakeResponse)
    assert not response.body, "a failure after the first byte is told in the stream"
    assert TABLE[fault.code].status >= 400
    return Folded(error={"code": fault.code, "message": fault.public})


def _read(frame: bytes) -> tuple[bytes, Any] | None:
    """Return what comes before the data of an event, and the data; None if it is not JSON."""
    lines = frame.split(b"\n")
    datas = [line[5:] for line in lines if line.startswith(b"data:")]
    try:
        tree = json.loads(b"\n".join(datas))
    except (ValueError, RecursionError):
        return None
    return b"".join(line + b"\n" for line in lines if not line.startswith(b"data:")), tree


class ResponsesStreams(Streams):
    """Answers of the Responses API."""

    name = "responses"


class ChatStreams(Streams):
    """Answers of Chat Completions."""

    name = "chat"


class AnthropicStreams(Streams):
    """Answers of the Messages API."""

    name = "anthropic"
