"""Anthropic's Messages, for Claude 4.5 to 5.5.

Sources: platform.claude.com/docs (2026-11): api/messages, build-with-claude/extended-thinking, .../preserved-thinking
with its pages prefix-checks and fix-bound-to-a-different-conversation, .../prompt-caching, agents-and-tools/tool-use,
and the migration guides of the models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar, Final

from kit.vendors.double import (
    Answer,
    Ask,
    Double,
    Frame,
    Json,
    Made,
    Part,
    Refused,
    Rule,
    Tool,
    cut,
    digests,
    document,
    encoded,
    event,
)
from kit.vendors.openai_shapes import check_path

DOCS: Final = "platform.claude.com/docs/en/"
MESSAGES: Final = DOCS + "api/messages (2026-11)"
TOOL_USE: Final = DOCS + "agents-and-tools/tool-use/handle-tool-calls (2026-11)"
THINKING: Final = DOCS + "build-with-claude/extended-thinking (2026-11)"
CHECKS: Final = DOCS + "build-with-claude/preserved-thinking/prefix-checks (2026-11)"
CACHING: Final = DOCS + "build-with-claude/prompt-caching (2026-11)"
MIGRATION: Final = DOCS + "models, migration guides (2026-11)"

BINDING_BETA: Final = "thinking-binding-controls-2026-08-01"
_FAST_BETA: Final = "fast-mode-2026-02-01"
_PARAMETERS: Final = frozenset(
    {
        *(
            "model",
            "messages",
            "max_tokens",
            "system",
            "tools",
            "tool_choice",
            "stream",
            "temperature",
            "top_p",
            "top_k",
        ),
        *("stop_sequences", "metadata", "service_tier", "thinking", "output_config", "speed", "cache_control"),
        *("container", "diagnostics", "inference_geo", "user_profile_id", "workspace_id"),
    }
)
_BLOCKS: Final = {
    "user": {"text", "image", "document", "tool_result"},
    "assistant": {"text", "tool_use", "thinking", "redacted_thinking"},
}
_BLOCK_FIELDS: Final = {
    "text": {"type", "text", "cache_control", "citations"},
    "image": {"type", "source", "cache_control"},
    "document": {"type", "source", "title", "context", "citations", "cache_control"},
    "tool_result": {"type", "tool_use_id", "content", "is_error", "cache_control"},
    "tool_use": {"type", "id", "name", "input", "cache_control", "caller"},
    "thinking": {"type", "thinking", "signature"},
    "redacted_thinking": {"type", "data"},
}
_TOOL_FIELDS: Final = frozenset(
    {"name", "description", "input_schema", "cache_control", "type", "strict", "eager_input_streaming", "defer_loading"}
)
_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_EFFORTS: Final = frozenset({"low", "medium", "high", "xhigh", "max"})


def blocks_of(ask: Ask) -> Iterator[tuple[str, str, Json]]:
    """Yield where each block of the messages is, its message's role, and the block."""
    for m, message in enumerate(ask.body["messages"]):
        if isinstance(message["content"], str):
            yield f"messages.{m}.content", message["role"], {"type": "text", "text": message["content"]}
            continue
        for c, block in enumerate(message["content"]):
            yield f"messages.{m}.content.{c}", message["role"], block


def content_of(message: Json) -> list[Json]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def betas_of(ask: Ask) -> list[str]:
    return [name.strip() for name in ask.headers.get("anthropic-beta", "").split(",")]


def _version(double: Double, ask: Ask) -> None:
    if not ask.headers.get("anthropic-version"):
        raise Refused("anthropic-version: header is required")
    if not ask.headers.get("x-api-key") and not ask.headers.get("authorization"):
        raise Refused("x-api-key header is required", status=401)


def _parameters(double: Double, ask: Ask) -> None:
    for name in ask.body:
        if name not in _PARAMETERS:
            raise Refused(f"{name}: Extra inputs are not permitted")
    if "speed" in ask.body and _FAST_BETA not in betas_of(ask):
        raise Refused("speed: Extra inputs are not permitted")


def _model(double: Double, ask: Ask) -> None:
    if ask.body.get("model") not in double.models:
        raise Refused(f"model: {ask.body.get('model')}", status=404)


def _max_tokens(double: Double, ask: Ask) -> None:
    if not isinstance(ask.body.get("max_tokens"), int) or ask.body["max_tokens"] < 1:
        raise Refused("max_tokens: Field required")


def _roles(double: Double, ask: Ask) -> None:
    messages = ask.body.get("messages")
    if not messages:
        raise Refused("messages: at least one message is required")
    for m, message in enumerate(messages):
        if message.get("role") != ("assistant" if m % 2 else "user"):
            raise Refused('messages: roles must alternate between "user" and "assistant"')
        if not message.get("content"):
            raise Refused(f"messages.{m}: all messages must have non-empty content")


def _fields(double: Double, ask: Ask) -> None:
    for where, role, block in blocks_of(ask):
        if block.get("type") not in _BLOCKS[role]:
            raise Refused(
                f"{where}: Input tag '{block.get('type')}' found using 'type' does not match the expected tags"
            )
        if unknown := set(block) - _BLOCK_FIELDS[block["type"]]:
            raise Refused(f"{where}.{block['type']}.{min(unknown)}: Extra inputs are not permitted")
        if block["type"] == "tool_use" and not isinstance(block.get("input"), dict):
            raise Refused(f"{where}.tool_use.input: Input should be a valid dictionary")
        if block["type"] == "image" and block["source"].get("type") not in ("base64", "url", "file"):
            raise Refused(f"{where}.image.source: Input tag does not match the expected tags")


def _texts(double: Double, ask: Ask) -> None:
    system = ask.body.get("system") or []
    texts = [] if isinstance(system, str) else [(f"system.{n}", block) for n, block in enumerate(system)]
    for where, block in [*texts, *((where, block) for where, _, block in blocks_of(ask))]:
        if block["type"] == "text" and not block.get("text", "").strip():
            raise Refused(f"{where}: text content blocks must contain non-whitespace text")
    last = content_of(ask.body["messages"][-1])[-1]
    if ask.body["messages"][-1]["role"] == "assistant" and last.get("text", "").endswith((" ", "\n")):
        raise Refused("messages: final assistant content cannot end with trailing whitespace")


def _ids(double: Double, ask: Ask) -> None:
    seen: set[str] = set()
    for where, _, block in blocks_of(ask):
        call_id = block.get("id") if block["type"] == "tool_use" else block.get("tool_use_id")
        if block["type"] in ("tool_use", "tool_result"):
            if not isinstance(call_id, str) or not _ID.fullmatch(call_id):
                raise Refused(f"{where}.{block['type']}.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
            if block["type"] == "tool_use":
                if call_id in seen:
                    raise Refused(f"{where}: `tool_use` ids must be unique")
                seen.add(call_id)


def _results(double: Double, ask: Ask) -> None:
    waiting: list[str] = []
    for m, message in enumerate(ask.body["messages"]):
        content = content_of(message)
        results = [block["tool_use_id"] for block in content if block["type"] == "tool_result"]
        if missing := [call_id for call_id in waiting if call_id not in results]:
            raise Refused(
                f"messages.{m}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}"
            )
        if unexpected := [call_id for call_id in results if call_id not in waiting]:
            raise Refused(f"messages.{m}: unexpected `tool_use_id` found in `tool_result` blocks: {unexpected[0]}")
        if len(set(results)) != len(results):
            raise Refused(f"messages.{m}: each tool_use must have a single result")
        if any(block["type"] != "tool_result" for block in content[: len(results)]):
            raise Refused(f"messages.{m}: tool_result blocks must come first")
        waiting = [block["id"] for block in content if block["type"] == "tool_use"]
    if waiting:
        raise Refused("messages: `tool_use` ids were found without `tool_result` blocks immediately after")


def _marks(double: Double, ask: Ask) -> None:
    system = ask.body.get("system") or []
    blocks = [*(ask.body.get("tools") or ()), *(() if isinstance(system, str) else system)]
    blocks += (block for _, _, block in blocks_of(ask))
    count = sum("cache_control" in block for block in blocks)
    if count > 4:
        raise Refused(f"A maximum of 4 blocks with cache_control may be provided. Found {count}.")


def _tools(double: Double, ask: Ask) -> None:
    tools = ask.body.get("tools") or []
    for n, tool in enumerate(tools):
        if not _NAME.fullmatch(tool.get("name") or ""):
            raise Refused(f"tools.{n}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        if set(tool) - _TOOL_FIELDS or (tool.get("input_schema") or {}).get("type") != "object":
            raise Refused(f"tools.{n}.custom: Extra inputs are not permitted, and input_schema.type is required")
    if not tools and any(block["type"] in ("tool_use", "tool_result") for _, _, block in blocks_of(ask)):
        raise Refused("Requests which include `tool_use` or `tool_result` blocks must define tools")
    for where, _, block in blocks_of(ask):
        if block["type"] == "tool_use" and not _NAME.fullmatch(block.get("name") or ""):
            raise Refused(f"{where}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")


def _thinking_kind(ask: Ask) -> str:
    return str((ask.body.get("thinking") or {}).get("type", ""))


def _budget(double: Double, ask: Ask) -> None:
    thinking = ask.body.get("thinking") or {}
    if thinking.get("type") == "adaptive":
        raise Refused("adaptive thinking is not supported on this model")
    if thinking.get("type") == "enabled":
        if not 1024 <= thinking.get("budget_tokens", 0) < ask.body["max_tokens"]:
            raise Refused("`max_tokens` must be greater than `thinking.budget_tokens`, which must be at least 1024")
        if ask.body.get("temperature", 1) != 1 or "top_k" in ask.body:
            raise Refused("`temperature` may only be set to 1 when thinking is enabled.")
        if (ask.body.get("tool_choice") or {}).get("type") in ("any", "tool"):
            raise Refused("Thinking may not be enabled when tool_choice forces tool use.")


def _thinking_first(double: Double, ask: Ask) -> None:
    """Refuse a tool turn that is being answered and does not start with thinking."""
    if _thinking_kind(ask) != "enabled":
        return
    for m, message in reversed(list(enumerate(ask.body["messages"]))):
        content = content_of(message)
        if message["role"] == "user":
            if content[0]["type"] != "tool_result":
                return
        elif content[0]["type"] not in ("thinking", "redacted_thinking"):
            raise Refused(
                f"messages.{m}.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
                f"`{content[0]['type']}`. When `thinking` is enabled, a final `assistant` message must start with a "
                "thinking block."
            )


def _thinking_last(double: Double, ask: Ask) -> None:
    for m, message in enumerate(ask.body["messages"]):
        if message["role"] == "assistant" and content_of(message)[-1]["type"] in ("thinking", "redacted_thinking"):
            raise Refused(f"messages.{m}: The final block in an assistant message cannot be `thinking`.")


def _adaptive(double: Double, ask: Ask) -> None:
    thinking = ask.body.get("thinking") or {}
    if thinking.get("type") == "enabled":
        raise Refused('"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive".')
    effort = (ask.body.get("output_config") or {}).get("effort")
    if effort is not None and effort not in _EFFORTS:
        raise Refused(f"output_config.effort: Input should be one of {sorted(_EFFORTS)}")


def _always_thinks(double: Double, ask: Ask) -> None:
    if _thinking_kind(ask) == "disabled":
        raise Refused("thinking.type: disabled is not supported for this model")
    if (ask.body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise Refused("tool_choice: forced tool use is not supported for this model")


def _no_sampling(double: Double, ask: Ask) -> None:
    for name in ("temperature", "top_p", "top_k"):
        if name in ask.body:
            raise Refused(f"`{name}` is not supported for this model.")


def _one_sampling(double: Double, ask: Ask) -> None:
    if "temperature" in ask.body and "top_p" in ask.body:
        raise Refused("`temperature` and `top_p` cannot both be specified for this model.")


def _no_prefill(double: Double, ask: Ask) -> None:
    if ask.body["messages"][-1]["role"] == "assistant":
        raise Refused("This model does not support assistant message prefill.")


def _controls(double: Double, ask: Ask) -> None:
    binding = (ask.body.get("thinking") or {}).get("block_binding")
    if binding is not None and (not getattr(double, "has_binding", False) or BINDING_BETA not in betas_of(ask)):
        raise Refused("thinking.block_binding: Extra inputs are not permitted")


def _signatures(double: Any, ask: Ask) -> None:
    for where, _, block in blocks_of(ask):
        if block["type"] == "redacted_thinking":
            raise Refused(f"{where}: Invalid `data` in `redacted_thinking` block")
        if block["type"] == "thinking":
            issued = double.issued.get(block.get("signature"))
            if issued is None or issued.bound_to["text"] != block.get("thinking"):
                raise Refused(f"{where}: Invalid `signature` in `thinking` block")


def _bound(double: Any, ask: Ask) -> None:
    if double.drops(ask):
        return
    for where, reason in double.unbound(ask.body):
        raise Refused(
            f"{where}: Invalid `signature` in `thinking` block. The block is bound to a different conversation. "
            f"({reason})"
        )


_SHAPE: Final = (
    Rule("path", MESSAGES, check_path),
    Rule("version and key", DOCS + "api/versioning (2026-11)", _version),
    Rule("parameters are known", MESSAGES, _parameters),
    Rule("model exists", MESSAGES, _model),
    Rule("max_tokens is there", MESSAGES, _max_tokens),
    Rule("roles alternate", MESSAGES, _roles),
    Rule("blocks are known", MESSAGES, _fields),
    Rule("texts are not empty", MESSAGES + '; 400 "text content blocks must contain non-whitespace text"', _texts),
    Rule("ids are legal and unique", TOOL_USE + "; ungate 673a830", _ids),
    Rule("results follow at once", TOOL_USE, _results),
    Rule("at most four cache marks", CACHING, _marks),
    Rule("thinking leads to something", '400 "The final block ..." (tailcallhq/forgecode#2107, #3071)', _thinking_last),
    Rule("tools are defined", MESSAGES, _tools),
    Rule("block_binding with its beta only", CHECKS, _controls),
    Rule("signatures are valid", THINKING + '; 400 "Invalid `signature`"', _signatures),
)


class Claude45(Double):
    """Claude 4.5: thinking with a budget, sampling, prefill."""

    PATH = "/v1/messages"
    RULES: ClassVar[tuple[Rule, ...]] = (
        *_SHAPE,
        Rule("one sampling parameter", MIGRATION, _one_sampling),
        Rule("thinking has a budget", THINKING, _budget),
        Rule("tool turns start with thinking", THINKING + '; 400 "Expected `thinking`"', _thinking_first),
    )
    has_binding: ClassVar[bool] = False
    always_thinks: ClassVar[bool] = False

    def drops(self, ask: Ask) -> bool:
        """Return whether blocks that do not fit are left out, and not refused."""
        return (
            BINDING_BETA in betas_of(ask)
            and ((ask.body.get("thinking") or {}).get("block_binding") or {}).get("prefix_mismatch_behavior")
            == "drop_block"
        )

    def read(self, body: Json) -> tuple[list[bytes], bytes]:
        system = body.get("system") or []
        units = [encoded({"system": block}) for block in ([system] if isinstance(system, str) else system)]
        for message in body["messages"]:
            role = message["role"].encode()
            units += (role + encoded(block) for block in content_of(message))
        return units, encoded(body.get("tools") or [])

    def _starts(self, body: Json) -> list[str]:
        """Return, for each message and for the next answer, the hash of everything before it."""
        units, tools = self.read(body)
        sizes = [len(content_of(message)) for message in body["messages"]]
        before = digests(units, tools)
        place = len(units) - sum(sizes)
        starts = [before[place]]
        for size in sizes:
            place += size
            starts.append(before[place])
        return starts

    def unbound(self, body: Json) -> list[tuple[str, str]]:
        """Return where there is thinking that does not fit what is before it now, and why."""
        starts = self._starts(body)
        found: list[tuple[str, str]] = []
        for m, message in enumerate(body["messages"]):
            if message["role"] == "user":
                continue
            before: list[str] = []
            for c, block in enumerate(content_of(message)):
                if block["type"] == "thinking":
                    bound_to = self.issued[block["signature"]].bound_to
                    if bound_to["start"] != starts[m]:
                        found.append((f"messages.{m}.content.{c}", "prefix_mismatch"))
                    elif bound_to["before"] != before:
                        found.append((f"messages.{m}.content.{c}", "prefix_mismatch within the message"))
                before.append(_mark(block))
        return found

    def note_reasoning(self, ask: Ask) -> None:
        bad = {where for where, _ in self.unbound(ask.body)} if self.has_binding else set()
        self.dropped += len(bad)
        good = {
            block["signature"] for where, _, block in blocks_of(ask) if block["type"] == "thinking" and where not in bad
        }
        self.saw(good)

    def tools(self, body: Json) -> list[Tool]:
        if (body.get("tool_choice") or {}).get("type") == "none":
            return []
        return [Tool(tool["name"], tool["input_schema"]) for tool in body.get("tools") or ()]

    def is_after_outputs(self, body: Json) -> bool:
        return bool(content_of(body["messages"][-1])[0]["type"] == "tool_result")

    def thinks(self, body: Json) -> bool:
        return self.always_thinks or (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")

    def write(self, body: Json) -> Made:
        made = super().write(body)
        if self.has_binding and made.has_thought and len(made.parts) > 1 and self.rng.random() < 0.3:
            # "A turn may be thinking, text, thinking, text, tool_use."
            at = 2 if made.parts[1].kind == "text" else 1
            made.parts[at:at] = [Part("thought", f"And again {made.turn}: {self.words(4)}.")]
            if at + 1 == len(made.parts) or self.rng.random() < 0.5:  # the last block is never thinking
                made.parts[at + 1 : at + 1] = [Part("text", f"So {made.turn}: {self.words(3)}.")]
        return made

    def call_id(self) -> str:
        return "toolu_01" + self.letters(22)

    def frames(self, made: Made, body: Json) -> Iterator[Frame]:
        start = self._starts(body)[-1]
        is_shown = (body.get("thinking") or {}).get("display") is not None or not self.has_binding
        message = {"id": f"msg_{self.letters(20)}", "type": "message", "role": "assistant", "model": made.model}
        usage = {"input_tokens": 100, "output_tokens": 1}
        yield _event("message_start", message=message | {"content": [], "stop_reason": None, "usage": usage})
        before: list[str] = []
        for at, part in enumerate(made.parts):
            if part.kind == "thought":
                text = part.text if is_shown else ""
                token = self.issue(made, {"start": start, "before": [*before], "text": text})
                before.append(f"thinking {token}")
                block: Json = {"type": "thinking", "thinking": "", "signature": ""}
                yield _event("content_block_start", index=at, content_block=block)
                for piece in cut(text) if text else ():
                    yield _delta(at, "thinking_delta", thinking=piece)
                yield _delta(at, "signature_delta", token, signature=token)
            elif part.kind == "text":
                before.append(_mark({"type": "text", "text": part.text}))
                yield _event("content_block_start", index=at, content_block={"type": "text", "text": ""})
                for piece in cut(part.text):
                    yield _delta(at, "text_delta", text=piece)
            else:
                before.append(f"tool_use {part.call_id}")
                block = {"type": "tool_use", "id": part.call_id, "name": part.name, "input": {}}
                yield _event("content_block_start", index=at, content_block=block)
                for piece in ("", *cut(part.text)):
                    yield _delta(at, "input_json_delta", partial_json=piece)
            yield _event("content_block_stop", index=at)
        reason = "tool_use" if made.calls else "end_turn"
        yield _event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": 10})
        yield _event("message_stop")

    def refusal(self, refused: Refused) -> Answer:
        kind = {401: "authentication_error", 404: "not_found_error"}.get(refused.status, "invalid_request_error")
        return document(refused.status, {"type": "error", "error": {"type": kind, "message": refused.message}})

    def length_refusal(self, tokens: int) -> Refused:
        return Refused(f"prompt is too long: {tokens} tokens > {self.limit_tokens} maximum")


class Claude5(Claude45):
    """Claude 4.7 and 5: adaptive thinking, no sampling, no prefill; thinking is not bound to its prefix."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        *_SHAPE,
        Rule("no sampling", MIGRATION, _no_sampling),
        Rule("no prefill", MIGRATION, _no_prefill),
        Rule("thinking is adaptive", THINKING, _adaptive),
    )


class Claude52(Claude5):
    """Claude Fable and Mythos 5.1, 5.2, Opus 5.5: they always think, and thinking is bound to its prefix."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        *Claude5.RULES,
        Rule("thinking stays on", MIGRATION, _always_thinks),
        Rule("thinking is bound to its prefix", CHECKS + '; 400 "bound to a different conversation"', _bound),
    )
    has_binding = True
    always_thinks = True
    restores = "unchanged"


def _own_account(double: Double, ask: Ask) -> None:
    for where, _, block in blocks_of(ask):
        if block["type"] == "thinking" and double.issued[block["signature"]].account != double.account:
            raise Refused(f"{where}: Invalid `signature` in `thinking` block")


class Claude55(Claude52):
    """Sonnet and Haiku 5.5: thinking is bound to the account, too."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        *Claude5.RULES,
        Rule("thinking is this account's", CHECKS + ", accounts", _own_account),
        Rule("thinking is bound to its prefix", CHECKS + '; 400 "bound to a different conversation"', _bound),
    )
    binds_account = True


def _mark(block: Json) -> str:
    """Return what identifies a block of a message."""
    match block["type"]:
        case "thinking":
            return f"thinking {block['signature']}"
        case "tool_use":
            return f"tool_use {block['id']}"
        case kind:
            return f"{kind} {block.get('text', '').strip()}"


def _event(kind: str, **fields: Any) -> Frame:
    return event({"type": kind, **fields}, kind)


def _delta(at: int, kind: str, token: str | None = None, **fields: Any) -> Frame:
    return event(
        {"type": "content_block_delta", "index": at, "delta": {"type": kind, **fields}}, "content_block_delta", token
    )
