"""``model_list`` to deployments: which upstream answers for which model name, and how.

Providers that we cannot reach (SageMaker, watsonx ...) are left out with one warning, before their other fields are
read, so that a file made for LiteLLM starts.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from pipeline.gateway.config.address_parts import placed
from pipeline.gateway.config.fields import Environment, Section, is_not_set
from pipeline.gateway.config.headers import HeaderReader
from pipeline.gateway.config.ignored import warn_ignored, warn_unknown
from pipeline.gateway.config.limits import read_deployment_limits, strictest
from pipeline.gateway.config.litellm_names import (
    LITELLM_PARAMS,
    MODEL_INFO,
    MODEL_LIST_ENTRY,
    UNREACHED,
    split_model,
)
from pipeline.gateway.config.problems import FieldPlace, Problems, did_you_mean, safe_name, safe_word
from pipeline.gateway.config.request_parameters import read_parameters
from pipeline.gateway.config.token_command import read_token
from pipeline.gateway.config.urls import (
    azure_url,
    base_problem,
    default_url,
    endpoint_url,
    is_azure_deployment_of,
    is_same_owner,
)
from pipeline.gateway.config.yaml_tree import Node
from stages.limits import NO_LIMITS
from stages.upstreams import Deployment, HealthCheck, Timeouts, Transport, UpstreamKind
from stages.upstreams.apis import APIS
from stages.upstreams.canned.timing import is_timed, parse_timing
from stages.upstreams.model_modes import other_mode
from stages.upstreams.provider import Provider
from stages.upstreams.providers import PROVIDERS, UNKNOWN, is_openai_itself
from stages.upstreams.rows.local import COMPATIBLE
from stages.upstreams.token import Token, TokenCommand
from stages.wire.downstream.forwarding import FORWARDABLE
from stages.wire.openai_models import family_of
from stages.wire.responses.api import RESPONSES

CANNED = ("echo", "story", "agent")
"""The built-in models of ``canned/``, besides ``timed:<script>`` and ``replay:<file>``."""

REFUSED_BY_CURSOR = ("gpt-5.5", "gpt-6-astra")
"""Custom names for which Cursor itself reports an error, and sends nothing: docs/facts/cursor.md, "Model names"
(forum.cursor.com t/160004, t/161077; orchidfiles/ungate#50, PR #52)."""

_SERVED_MODES = ("chat", "responses")
_VERSION = re.compile(r"[A-Za-z0-9._\-]+\Z")
_CHAT_PREFIX = "chat_completions/"  # LiteLLM: `openai/chat_completions/<name>` asks for the chat bridge
_RESPONSES_PREFIX = "responses/"


class Defaults(Struct, frozen=True, kw_only=True):
    """What applies to each deployment unless its entry says otherwise; durations in seconds.

    ``parallel`` is how many requests it may have at a time.
    """

    timeout_s: float | None = None
    stream_timeout_s: float | None = None
    total_s: float | None = None
    parallel: int | None = None
    transport: Transport


def read_deployments(nodes: list[Node], environment: Environment, defaults: Defaults) -> tuple[Deployment, ...]:
    """Read the entries of ``model_list``, in order. Errors and warnings go to ``environment.problems``."""
    found: list[tuple[Node, str | None, Deployment]] = []
    tokens: dict[TokenCommand, Token] = {}
    for node in nodes:
        if not isinstance(node.value, dict):
            expected = "expected a mapping with model_name and litellm_params"
            environment.problems.error(node.place, f"{node.found(secret=True)}, {expected}")
            continue
        entry = _Entry(node, environment, defaults, tokens)
        deployment = entry.read()
        entry.report_names()
        if entry.is_left_out:
            entry.report_left_out()
        elif deployment is not None:
            found.append((node, entry.id, deployment))
    return _with_ids(found, environment.problems)


class _Entry:
    """Reads one entry of ``model_list``.

    It is left out if the model is not for chats, or cannot be asked, or if a variable is not set that the entry needs:
    as in LiteLLM, which starts and fails when that model is called.
    """

    def __init__(
        self, node: Node, environment: Environment, defaults: Defaults, tokens: dict[TokenCommand, Token]
    ) -> None:
        self._tokens = tokens
        environment = environment.telling(lambda place, name: self._unset.append((place, is_not_set(name))))
        self._environment = environment
        self._problems = environment.problems
        self._defaults = defaults
        self._node = node
        self._entry = Section(node, environment)
        params = self._entry.get("litellm_params")
        self._params = Section(params, environment)
        self._info = Section(self._entry.get("model_info"), environment)
        self.id: str | None = None
        self._shown_name = node.path
        self._unset: list[tuple[FieldPlace, str]] = []
        self._reason: str | None = None
        self._is_chat = False
        self._names_api = False
        self._missing = self._bare = ""
        self._limits = self._key_limits = NO_LIMITS

    @property
    def is_left_out(self) -> bool:
        """Whether it is, after ``read``."""
        return bool(self._unset) or self._reason is not None

    def report_left_out(self) -> None:
        """Report why it is left out: that variables are not set or, if they are, what else it is."""
        reasons: dict[str, FieldPlace] = {}
        for place, reason in self._unset or [(self._node.place, self._reason or "")]:
            reasons.setdefault(reason, place)
        for reason, place in reasons.items():
            self._problems.leave_out(place, reason, self._shown_name)

    def report_names(self) -> None:
        """Report fields that are not known and, unless it is left out, those that are not supported."""
        report = warn_unknown if self.is_left_out else warn_ignored
        report(self._entry, MODEL_LIST_ENTRY, self._problems)
        report(self._params, LITELLM_PARAMS, self._problems)
        report(self._info, MODEL_INFO, self._problems, near_misses_only=True)

    def read(self) -> Deployment | None:
        """Return the deployment; None if it is left out, or if an error was noted that prevents reading it."""
        model_name = self._required(self._entry, "model_name", "the name that clients ask for, such as gpt-5")
        written = None
        if self._entry.get("litellm_params") is None:
            self._problems.error(self._node.place, "has no litellm_params: expected model, api_key and so on")
        else:
            written = self._required(self._params, "model", "text such as openai/gpt-5")
        if model_name is not None:
            self._shown_name = safe_name(model_name)
        if model_name is None or written is None:
            return None
        if model_name in REFUSED_BY_CURSOR:
            place = self._entry.get("model_name")
            self._problems.warn(
                place.place if place else self._node.place,
                f"is a name that Cursor refuses itself, without a request: in Cursor use an alias, such as "
                f"custom-{model_name}",
            )
        provider, model = split_model(written)
        if named := self._params.text("custom_llm_provider", "the name of a provider, such as openai"):
            provider, model = named, written.removeprefix(f"{named}/")
        self._bare = written if written.startswith("gemini-") else ""
        mode = self._info.text("mode", "chat or responses")
        known, model = self._row(provider, model)
        asked = [] if provider == "canned" or not _is_served(mode) else self._asked_kinds(known, model, mode)
        self._names_api = bool(asked)
        self._is_chat = mode is not None or bool(asked)
        if provider != "canned" and (other := self._other_mode(mode, model)) is not None:
            self._reason = "is not for chats (if it is, write mode: chat into model_info)"
            self._shown_name += f" ({other})"
            return None
        kind, reason = self._kind(provider, known, model, model_name, asked)
        if kind is None:
            self._reason = reason
            return None
        if "*" in model and "*" not in model_name:
            place = self._params.get("model")
            where = place.place if place else self._node.place
            self._problems.error(
                where, "contains a *, but model_name does not: write the same * there, or name one model here"
            )
        self.id = self._read_id()
        self._limits, self._key_limits = read_deployment_limits(
            self._entry, self._params, self._info, self._defaults.parallel
        )
        timeouts = self._timeouts()
        if provider == "canned":
            return self._canned(model_name, model, timeouts)
        model = model.removeprefix(_CHAT_PREFIX).removeprefix(_RESPONSES_PREFIX)
        return self._remote(model_name, provider or COMPATIBLE, known, model, kind, timeouts)

    def _row(self, provider: str | None, written: str) -> tuple[Provider, str]:
        """Return the provider's row as it is for this model, and its name of the model."""
        known = PROVIDERS.get(provider or "", UNKNOWN)
        model = known.named(written)
        known = known.of_model(model.removeprefix(_CHAT_PREFIX).removeprefix(_RESPONSES_PREFIX))
        node = self._base_node()
        base = self._environment.first_of(known.base_names) if node is None else self._environment.text_of(node)
        known, self._missing = placed(known, written, base, self._params, self._environment)
        return known, model

    def _required(self, section: Section, name: str, expected: str) -> str | None:
        if section.node is not None and isinstance(section.node.value, dict) and section.get(name) is None:
            self._problems.error(section.node.place, f"has no {name}: expected {expected}")
            return None
        return section.text(name, expected)

    def _other_mode(self, mode: str | None, model: str) -> str | None:
        """Return what the entry's model is for if that is not chats: by its mode, or else by its name."""
        if not _is_served(mode):
            return (safe_word(mode or "") or "something else").replace("_", " ")
        if self._is_chat:
            return None
        node = self._info.get("base_model") or self._params.get("base_model")
        return other_mode(node.value if node is not None and isinstance(node.value, str) else model)

    def _kind(
        self, provider: str | None, known: Provider, model: str, model_name: str, asked: list[UpstreamKind]
    ) -> tuple[UpstreamKind | None, str]:
        """Return the API to use; None, with the reason, if the entry is left out."""
        if provider == "canned":
            return "canned", ""
        if model_name.count("*") > 1 or model.count("*") > 1:
            return None, "a name with more than one * is not supported yet"
        if self._params.get("litellm_credential_name") is not None:
            return None, "litellm_credential_name is not supported yet"
        has_base = self._base_node() is not None or self._environment.first_of(known.base_names) is not None
        kind = _usual_kind(known)
        for wanted in asked:
            if wanted in known.kinds or has_base:
                kind = wanted
                break
        if kind is None and known is not UNKNOWN:
            route = known.route_of(model)
            return None, (route.reason if route is not None else None) or "this model cannot be called"
        if kind is None and asked:
            return None, "an unknown provider needs an api_base"
        if kind is None and provider is None:
            hint = _meant_provider(model.partition("/")[0])
            return None, f"the provider of its model is not known (expected a prefix, as in openai/gpt-5){hint}"
        if kind is None:
            why = UNREACHED.get(provider or "", f" yet{_meant_provider(provider or '')}")
            return None, f"provider {safe_name(provider or '')} is not supported{why}"
        if self._missing:
            bare = f"; gemini/{safe_name(self._bare)} is asked for with a Gemini key" if self._bare else ""
            return None, f"provider {safe_name(provider or '')}: {self._missing}{bare}"
        if known.signs_in_to is not None and not self._has_token(known):
            return None, f"signing in to {known.signs_in_to} is not supported ({known.token_from})"
        return kind, ""

    def _has_token(self, known: Provider) -> bool:
        """Return whether the entry, or the provider's variable, has a token or says where it comes from."""
        fields = ("api_key", "token_command", "headers", "extra_headers")
        return (
            any(self._params.get(field) is not None for field in fields)
            or self._environment.first_of(known.key_names) is not None
        )

    def _asked_kinds(self, known: Provider, model: str, mode: str | None) -> list[UpstreamKind]:
        """Return the APIs that the entry asks for, the preferred one first; empty if it names none."""
        wants_chat = self._params.flag("use_chat_completions_api") or model.startswith(_CHAT_PREFIX)
        found = self._info.texts("supported_endpoints", 'a list such as ["/v1/responses"]') or ()
        listed: list[UpstreamKind] = [
            api.name for endpoint in found for api in APIS.values() if endpoint.rstrip("/").endswith(api.endpoint)
        ]
        # LiteLLM's bridge, which uses Messages for Anthropic's models anyway.
        if wants_chat and known.kinds != ("anthropic",):
            return ["chat"]
        if mode == "responses" or "responses" in listed or model.startswith(_RESPONSES_PREFIX):
            return ["responses"]
        usual = _usual_kind(known)
        return [usual] if usual in listed else listed

    def _read_id(self) -> str | None:
        node = self._info.get("id")
        if node is None:
            return None
        if isinstance(node.value, int) and not isinstance(node.value, bool):
            return node.raw
        return self._info.text("id", "text such as gpt-5-eu")

    def _timeouts(self) -> Timeouts:
        """Map LiteLLM's two durations to ours, as ``docs/config.md`` explains."""
        timeout_s = (
            self._params.seconds("timeout") or self._params.seconds("request_timeout") or self._defaults.timeout_s
        )
        stream_timeout_s = self._params.seconds("stream_timeout") or self._defaults.stream_timeout_s
        usual = Timeouts()
        return Timeouts(
            headers_s=timeout_s or usual.headers_s,
            first_event_s=stream_timeout_s or timeout_s or usual.first_event_s,
            idle_s=stream_timeout_s or timeout_s or usual.idle_s,
            total_s=self._defaults.total_s,
        )

    def _canned(self, model_name: str, model: str, timeouts: Timeouts) -> Deployment | None:
        node = self._params.get("model")
        where = node.place if node else self._node.place
        kind, colon, name = model.partition(":")
        if colon and kind == "replay" and name:
            file = Path(self._node.source).parent / name
            if not os.path.isfile(file):  # unlike Path.is_file, it does not raise for any name
                self._problems.error(
                    where,
                    f"the file {file} does not exist: expected a recorded stream, relative to this file",
                )
                return None
            model = f"replay:{file.resolve()}"
        elif is_timed(model):
            try:
                parse_timing(model)
            except ValueError as error:
                self._problems.error(where, f"has an invalid script: {error}")
                return None
        elif model not in CANNED:
            hint = did_you_mean(model, (*CANNED, "timed"), cutoff=0.6)
            self._problems.error(
                where,
                f"is not a canned model: expected canned/{', canned/'.join(CANNED)}, canned/timed:<script> or "
                f"canned/replay:<file.sse>{hint}",
            )
            return None
        return Deployment(
            id="", model_name=model_name, model=model, provider="canned", kind="canned", url="", timeouts=timeouts,
            transport=self._defaults.transport, limits=self._limits, key_limits=self._key_limits,
        )  # fmt: skip

    def _remote(
        self, model_name: str, provider: str, known: Provider, model: str, kind: UpstreamKind, timeouts: Timeouts
    ) -> Deployment | None:
        url = self._url(provider, known, kind, model)
        # Without an address too, so that all that is missing is reported together.
        reader = HeaderReader(self._node, self._params, self._environment)
        headers = reader.read(provider, known, APIS[kind], url or "")
        if url is None:
            return None
        deployment = Deployment(
            id="", model_name=model_name, model=model, provider=provider, kind=kind, url=url, headers=headers,
            token=read_token(self._params, self._tokens),
            timeouts=timeouts, transport=self._defaults.transport, forward_fields=self._forward_fields(),
            weight=self._number("weight", 1.0), order=int(self._number("order", 0)),
            parameters=read_parameters(self._params), is_chat=self._is_chat,
            health_check=self._health_check(provider, known, model),
            max_retries=self._max_retries(), max_input_tokens=self._max_input_tokens(),
            limits=self._limits, key_limits=self._key_limits,
        )  # fmt: skip
        return self._with_chat(self._with_tools(deployment, known), known)

    def _with_tools(self, deployment: Deployment, known: Provider) -> Deployment:
        """Return the deployment in the API in which its model has function tools.

        Of a wildcard the model is not known yet, so it gets both. On Azure, an address that names another deployment
        than the model's stays as it is: only Chat Completions can be called there.
        """
        chat, model = deployment, deployment.model
        if chat.kind != "chat" or not is_openai_itself(chat.provider, chat.url):
            return chat
        if ("*" not in model and family_of(model).tools_on_chat) or not is_azure_deployment_of(model, chat.url):
            return chat
        url = self._url(chat.provider, known, "responses", model)
        responses = chat if url is None else replace(chat, kind="responses", url=url)
        return replace(chat, on_responses=responses) if "*" in model else responses

    def _health_check(self, provider: str, known: Provider, model: str) -> HealthCheck | None:
        """Return how it is asked in the background; None if it is not, or no model of a wildcard is named for that."""
        is_off = self._info.flag("disable_background_health_check")
        named = self._info.text("health_check_model", "the name of a model, such as openai/gpt-5-nano")
        timeout_s = self._info.seconds("health_check_timeout")
        if named is not None:
            model = known.named(named.removeprefix(f"{provider}/"))
            model = model.removeprefix(_CHAT_PREFIX).removeprefix(_RESPONSES_PREFIX)
        if is_off or "*" in model:
            return None
        return HealthCheck(model=model) if timeout_s is None else HealthCheck(model=model, timeout_s=timeout_s)

    def _with_chat(self, deployment: Deployment, known: Provider) -> Deployment:
        """Return the deployment, with its form in Chat Completions if nobody has said that its server has Responses.

        The provider's own server has what its row in the table says.
        """
        if deployment.kind != "responses" or self._names_api or is_openai_itself(deployment.provider, deployment.url):
            return deployment
        own = default_url(known, RESPONSES)
        if known.needs_key and own is not None and is_same_owner(deployment.url, own):
            return deployment
        url = self._url(deployment.provider, known, "chat", deployment.model)
        return deployment if url is None else replace(deployment, on_chat=replace(deployment, kind="chat", url=url))

    def _number(self, name: str, usual: float) -> float:
        found = self._params.number(name, "a number from 0 on, such as 1", most=1_000_000)
        return usual if found is None else found

    def _max_retries(self) -> int | None:
        """Return the deployment's own number of retries: LiteLLM has one for its SDKs, and one for its router."""
        expected = "a whole number from 0 to 100"
        found = [self._params.number(name, expected, most=100) for name in ("max_retries", "num_retries")]
        return next((int(number) for number in found if number is not None), None)

    def _max_input_tokens(self) -> int | None:
        found = self._info.number("max_input_tokens", "a number of tokens, such as 128000", most=1e12)
        return int(found) if found else None

    def _forward_fields(self) -> frozenset[str]:
        """Return the fields that the deployment forwards although they choose another model."""
        names = self._params.texts("forward_fields", "a list such as [provider, models]") or ()
        for name in names:
            if name not in FORWARDABLE:
                node = self._params.get("forward_fields")
                hint = did_you_mean(name, sorted(FORWARDABLE), cutoff=0.6)
                self._problems.error(
                    node.place if node else self._node.place,
                    f"lists {safe_word(name) or 'a field'}, which needs no permission: expected some of "
                    f"{', '.join(sorted(FORWARDABLE))}{hint}",
                )
        return frozenset(names)

    def _base_node(self) -> Node | None:
        return self._params.get("api_base") or self._params.get("base_url")

    def _url(self, provider: str, known: Provider, kind: UpstreamKind, model: str) -> str | None:
        expected = "a URL such as https://api.example.com/v1"
        version = self._params.text("api_version", "text such as 2025-04-01-preview")
        node = self._base_node()
        if node is not None:
            base = self._params.text("api_base" if self._params.get("api_base") else "base_url", expected, secret=True)
            where = node.place
        else:
            base = self._environment.first_of(known.base_names)
            where = (self._params.node or self._node).place.of_field("api_base")
            if base is None and (usual := default_url(known, APIS[kind])) is not None:
                return usual
            if base is None and known.base_names:
                self._environment.note_unset(where, known.base_names[0])
            elif base is None:
                self._problems.error(where, f"is missing: provider {safe_name(provider)} needs {expected}")
        if base is None:
            return None
        if problem := base_problem(base):
            self._problems.error(where, problem)
            return None
        if version is not None and not _VERSION.match(version):
            node = self._params.get("api_version")
            self._problems.error(
                node.place if node else where,
                "contains a character that is not allowed in a version: expected text such as 2025-04-01-preview",
            )
            return None
        if kind not in known.dated_kinds:
            return endpoint_url(base, known, APIS[kind])
        url = azure_url(base, version, APIS[kind], model)
        if "/deployments/*/" in url:
            place = self._params.get("model")
            self._problems.error(
                place.place if place else where,
                "contains a *, which Azure's dated addresses cannot have: remove api_version, or name one model here",
            )
            return None
        return url


def _meant_provider(name: str) -> str:
    if name in UNREACHED:
        return ""
    return did_you_mean(name, [f"{known}/" for known in (*PROVIDERS, *UNREACHED, "canned")])


def _is_served(mode: str | None) -> bool:
    return mode is None or mode in _SERVED_MODES


def _usual_kind(known: Provider) -> UpstreamKind | None:
    """Return the API for the provider's model if the entry names none."""
    return known.kinds[0] if known.kinds else None


def _with_ids(found: list[tuple[Node, str | None, Deployment]], problems: Problems) -> tuple[Deployment, ...]:
    """Set each deployment's id: the one in the file, or its name, numbered when that is taken.

    What a key may have of a model is the same for all deployments of the group, as in LiteLLM: the least that one says.
    """
    groups: dict[str, list[Deployment]] = {}
    for _, _, deployment in found:
        groups.setdefault(deployment.model_name, []).append(deployment)
    of_keys = {name: strictest(one.key_limits for one in group) for name, group in groups.items()}
    taken: dict[str, Node] = {}
    for node, chosen, _ in found:
        if chosen is not None:
            if chosen in taken:
                problems.error(
                    node.place.of_field("model_info").of_field("id"),
                    f"is also that of the deployment on line {taken[chosen].line}: write another",
                )
            taken[chosen] = node
    named: list[Deployment] = []
    for node, chosen, deployment in found:
        name = chosen
        if name is None:
            name, count = deployment.model_name, 1
            while name in taken:
                count += 1
                name = f"{deployment.model_name}#{count}"
            taken[name] = node
        key_limits = of_keys[deployment.model_name]
        forms = {
            field: replace(form, id=name, key_limits=key_limits)
            for field in ("on_responses", "on_chat")
            if (form := getattr(deployment, field)) is not None
        }
        named.append(replace(deployment, id=name, key_limits=key_limits, **forms))
    return tuple(named)
