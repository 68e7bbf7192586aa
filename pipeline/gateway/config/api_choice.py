"""By which API the model of an entry of ``model_list`` is asked, or why it cannot be."""

from __future__ import annotations

from msgspec import Struct

from pipeline.gateway.config.fields import Section
from pipeline.gateway.config.litellm_names import UNREACHED
from pipeline.gateway.config.litellm_sections import LitellmParams, ModelInfo
from pipeline.gateway.config.problems import did_you_mean, safe_name, safe_word
from stages.upstreams import UpstreamKind
from stages.upstreams.apis import APIS
from stages.upstreams.model_modes import other_mode
from stages.upstreams.provider import Provider
from stages.upstreams.providers import PROVIDERS, UNKNOWN

_SERVED_MODES = ("chat", "responses")
_CHAT_PREFIX = "chat_completions/"  # LiteLLM: `openai/chat_completions/<name>` asks for the chat bridge
_RESPONSES_PREFIX = "responses/"


class ApiChoice(Struct, frozen=True, kw_only=True):
    """The answer.

    Attributes:
        kind: the API; None if the entry is left out.
        reason: why it is left out.
        other_mode: what the model is for, if that is why.
        is_named: whether the entry names the API.
        is_chat: whether the entry says that its model is for chats.
    """

    kind: UpstreamKind | None = None
    reason: str = ""
    other_mode: str = ""
    is_named: bool = False
    is_chat: bool = False


class EntryModel(Struct, frozen=True, kw_only=True):
    """What an entry says of its model.

    Attributes:
        provider: the provider's prefix; None if it is not known.
        row: the provider's row, as it is for the model.
        name: the provider's name of the model, perhaps after a prefix that names the API.
        asked_for: ``model_name``.
        missing: what is missing for the provider's address, as a reason; empty if nothing is.
        bare: the name as it was written, if it is one of Gemini's without a provider; else empty.
    """

    provider: str | None
    row: Provider
    name: str
    asked_for: str
    missing: str
    bare: str


def without_api(model: str) -> str:
    """Return a model's name without the prefix that names the API."""
    return model.removeprefix(_CHAT_PREFIX).removeprefix(_RESPONSES_PREFIX)


def choose_api(model: EntryModel, section: Section, params: LitellmParams, info: ModelInfo) -> ApiChoice:
    """Choose it, of what the provider's row has and what the entry asks for.

    Args:
        model: the entry's model.
        section: its ``litellm_params``.
        params: the same, as it was read.
        info: its ``model_info``.
    """
    if model.provider == "canned":
        return ApiChoice(kind="canned", is_chat=info.mode is not None)
    asked = _asked_kinds(model, params, info) if _is_served(info) else []
    is_chat = info.mode is not None or bool(asked)
    if (other := _other_mode(model, section, info, is_chat=is_chat)) is not None:
        return ApiChoice(reason="is not for chats (if it is, write mode: chat into model_info)", other_mode=other)
    kind, reason = _kind_of(model, section, asked)
    return ApiChoice(kind=kind, reason=reason, is_named=bool(asked), is_chat=is_chat)


def names_base(section: Section) -> bool:
    """Return whether ``litellm_params`` has an address."""
    return section.get("api_base") is not None or section.get("base_url") is not None


def _is_served(info: ModelInfo) -> bool:
    return info.mode is None or info.mode in _SERVED_MODES


def _other_mode(model: EntryModel, section: Section, info: ModelInfo, *, is_chat: bool) -> str | None:
    """Return what the entry's model is for if that is not chats: by its mode, or else by its name."""
    if not _is_served(info):
        return (safe_word(info.mode or "") or "something else").replace("_", " ")
    if is_chat:
        return None
    node = info.base_model or section.get("base_model")
    return other_mode(node.value if node is not None and isinstance(node.value, str) else model.name)


def _asked_kinds(model: EntryModel, params: LitellmParams, info: ModelInfo) -> list[UpstreamKind]:
    """Return the APIs that the entry asks for, the preferred one first; empty if it names none."""
    wants_chat = params.use_chat_completions_api or model.name.startswith(_CHAT_PREFIX)
    listed: list[UpstreamKind] = [
        api.name
        for endpoint in info.supported_endpoints or ()
        for api in APIS.values()
        if endpoint.rstrip("/").endswith(api.endpoint)
    ]
    # LiteLLM's bridge, which uses Messages for Anthropic's models anyway.
    if wants_chat and model.row.kinds != ("anthropic",):
        return ["chat"]
    if info.mode == "responses" or "responses" in listed or model.name.startswith(_RESPONSES_PREFIX):
        return ["responses"]
    usual = _usual_kind(model.row)
    return [usual] if usual in listed else listed


def _kind_of(model: EntryModel, section: Section, asked: list[UpstreamKind]) -> tuple[UpstreamKind | None, str]:
    """Return the API to use; None, with the reason, if the entry is left out."""
    provider, row, environment = safe_name(model.provider or ""), model.row, section.environment
    if model.asked_for.count("*") > 1 or model.name.count("*") > 1:
        return None, "a name with more than one * is not supported yet"
    if section.get("litellm_credential_name") is not None:
        return None, "litellm_credential_name is not supported yet"
    has_base = names_base(section) or environment.first_of(row.base_names) is not None
    kind = next((wanted for wanted in asked if wanted in row.kinds or has_base), _usual_kind(row))
    if kind is None and row is not UNKNOWN:
        route = row.route_of(model.name)
        return None, (route.reason if route is not None else None) or "this model cannot be called"
    if kind is None and asked:
        return None, "an unknown provider needs an api_base"
    if kind is None and model.provider is None:
        hint = _meant_provider(model.name.partition("/")[0])
        return None, f"the provider of its model is not known (expected a prefix, as in openai/gpt-5){hint}"
    if kind is None:
        why = UNREACHED.get(model.provider or "", f" yet{_meant_provider(model.provider or '')}")
        return None, f"provider {provider} is not supported{why}"
    if model.missing:
        bare = f"; gemini/{safe_name(model.bare)} is asked for with a Gemini key" if model.bare else ""
        return None, f"provider {provider}: {model.missing}{bare}"
    if row.signs_in_to is not None and not _has_token(section, row):
        return None, f"signing in to {row.signs_in_to} is not supported ({row.token_from})"
    return kind, ""


def _has_token(section: Section, row: Provider) -> bool:
    """Return whether the entry, or the provider's variable, has a token or says where it comes from."""
    fields = ("api_key", "token_command", "headers", "extra_headers")
    return (
        any(section.get(field) is not None for field in fields)
        or section.environment.first_of(row.key_names) is not None
    )


def _meant_provider(name: str) -> str:
    if name in UNREACHED:
        return ""
    return did_you_mean(name, [f"{known}/" for known in (*PROVIDERS, *UNREACHED, "canned")])


def _usual_kind(row: Provider) -> UpstreamKind | None:
    """Return the API for the provider's model if the entry names none."""
    return row.kinds[0] if row.kinds else None
