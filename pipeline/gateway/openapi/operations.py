"""What each path does: sentences, who may ask, what is answered, and which errors there are.

The paths and their methods are those of `pipeline.gateway.routes`; what the errors mean is in `failures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.gateway.doctor.server_page import ServerPage
from pipeline.gateway.failures import TABLE
from pipeline.gateway.health_page import HealthPage
from pipeline.gateway.openapi.figures import FIGURES
from pipeline.gateway.openapi.headers import ALWAYS, OF_CHATS
from pipeline.gateway.openapi.operation import EVERYWHERE, JSON, KEY_CODES, MASTER_CODES, TEXT, UNCHANGED, Operation
from pipeline.gateway.openapi.schemas import ref
from pipeline.gateway.page_shapes import ListedModel, ModelList, Readiness
from pipeline.gateway.routes import ALIVE_PATHS, HEALTH_PATH, OPENAPI_PATH, READY_PATHS
from stages.wire.downstream.chat_shapes import ChatCompletion, ChatCompletionChunk, ErrorDocument

_CHAT: Final = tuple(
    code
    for code in TABLE
    if code not in EVERYWHERE
    and code not in ("master_key_required", "metrics_forbidden", "route_not_found", "record_not_found", "not_installed")
)


def _chat(id: str, summary: str, description: str) -> Operation:
    content = {
        JSON: ref(ChatCompletion),
        "text/event-stream": {"anyOf": [ref(ChatCompletionChunk), ref(ErrorDocument)]},
    }
    return Operation(
        id=id,
        tag="chat",
        summary=summary,
        description=description,
        content=content,
        codes=_CHAT,
        headers=OF_CHATS,
        also={
            "4XX": {
                "description": "`upstream_rejected`: the upstream's own status, if it is another one.",
                "content": {JSON: {"schema": ref(ErrorDocument)}},
            }
        },
    )


def _live(path: str) -> Operation:
    is_readiness = path in READY_PATHS
    schema = ref(Readiness) if is_readiness else TEXT
    unready = {"503": {"description": "It is starting, or about to stop.", "content": {JSON: {"schema": schema}}}}
    return Operation(
        id=f"get_{path.strip('/').replace('/', '_')}",
        tag="health",
        summary="Is this process ready for requests?" if is_readiness else "Is this process alive?",
        needs_key=False,
        content={JSON: schema},
        also=unready if is_readiness else {},
    )


OPERATIONS: Final[Mapping[str, Operation]] = {
    "/chat/completions": _chat(
        "createChatCompletion",
        "Answer a conversation",
        "The body is in the shape of the Responses API or of Chat Completions: its content decides, not the path. The "
        "answer has the shape of Chat Completions. With `stream: true` it is a stream of server-sent events: the data "
        "of each is a chunk, and of the last one `[DONE]`; lines that begin with a colon are heartbeats. A failure "
        "after the first event is an event with an error, which ends the stream without `[DONE]`; Cursor gets it as a "
        "line of text instead.",
    ),
    "/openai/deployments/{model}/chat/completions": _chat(
        "createChatCompletionOfDeployment", "Answer a conversation (Azure's path)", "As `/chat/completions`."
    ),
    "/engines/{model}/chat/completions": _chat(
        "createChatCompletionOfEngine",
        "Answer a conversation (OpenAI's old path)",
        "As `/chat/completions`.",
    ),
    "/models": Operation(
        id="listModels",
        tag="models",
        summary="List the models that the key may use",
        content={JSON: ref(ModelList)},
        codes=KEY_CODES,
        headers=ALWAYS,
    ),
    "/models/{model}": Operation(
        id="getModel",
        tag="models",
        summary="Look up a model that the key may use",
        description="Also one that is not listed: a variant, or one that a pattern matches.",
        content={JSON: ref(ListedModel)},
        codes=(*KEY_CODES, "model_not_found"),
        headers=ALWAYS,
    ),
    "/doctor": Operation(
        id="getDoctor",
        tag="health",
        summary="Show how this request has arrived",
        description="For the master key. `headrace doctor` asks it, to see what a proxy has changed.",
        content={JSON: ref(ServerPage)},
        codes=MASTER_CODES,
        headers=ALWAYS,
    ),
    "/": Operation(
        id="getBase",
        tag="about",
        summary="Say what this address is for",
        needs_key=False,
        content={JSON: {"type": "object", "additionalProperties": TEXT}},
        headers=ALWAYS,
    ),
    HEALTH_PATH: Operation(
        id="getHealth",
        tag="health",
        summary="Show what this worker knows of each deployment",
        description="For the master key. No upstream is asked.",
        content={JSON: ref(HealthPage)},
        codes=MASTER_CODES,
        headers=ALWAYS,
    ),
    **{path: _live(path) for path in (*ALIVE_PATHS, *READY_PATHS)},
    OPENAPI_PATH: Operation(
        id="getOpenapi",
        tag="about",
        summary="Describe all paths: this document",
        needs_key=False,
        content={JSON: {"type": "object"}},
        also=UNCHANGED,
        headers=(*ALWAYS, "etag"),
    ),
    **FIGURES,
}
"""By the path's template."""

PATH_PARAMETERS: Final[Mapping[str, str]] = {
    "model": "The name of a model. It may have slashes, encoded or not.",
    "file": "The name of a file that the page refers to.",
    "request_id": "As the header `x-request-id` of its response says.",
}
