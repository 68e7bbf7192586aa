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
from pipeline.gateway.config.api_choice import EntryModel, choose_api, names_base, without_api
from pipeline.gateway.config.deployment_ids import with_ids
from pipeline.gateway.config.fields import Environment, Section, is_not_set
from pipeline.gateway.config.headers import HeaderReader
from pipeline.gateway.config.ignored import warn_ignored, warn_unknown
from pipeline.gateway.config.kinds import kinds_of
from pipeline.gateway.config.limits import deployment_limits, first
from pipeline.gateway.config.litellm_names import (
    LITELLM_PARAMS,
    MODEL_INFO,
    MODEL_LIST_ENTRY,
    split_model,
)
from pipeline.gateway.config.litellm_sections import LitellmParams, ModelEntry, ModelInfo
from pipeline.gateway.config.problems import FieldPlace, did_you_mean, safe_name, safe_word
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
from stages.upstreams import Deployment, HealthCheck, Timeouts, Transport, UpstreamKind
from stages.upstreams.apis import APIS
from stages.upstreams.canned.timing import is_timed, parse_timing
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

_VERSION = re.compile(r"[A-Za-z0-9._\-]+\Z")


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
    return with_ids(found, environment.problems)


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
        self._params_section = Section(self._entry.get("litellm_params"), environment)
        self._info_section = Section(self._entry.get("model_info"), environment)
        self.id: str | None = None
        self._shown_name = node.path
        self._model_name: str | None = None
        self._unset: list[tuple[FieldPlace, str]] = []
        self._reason: str | None = None

    @property
    def is_left_out(self) -> bool:
        """Whether it is, after ``read``."""
        return bool(self._unset) or self._reason is not None

    def report_left_out(self) -> None:
        """Report why it is left out: which variables are not set, unless that would not help."""
        reasons: dict[str, FieldPlace] = {}
        for place, reason in self._unset if self._reason is None else [(self._node.place, self._reason)]:
            reasons.setdefault(reason, place)
        for reason, place in reasons.items():
            self._problems.leave_out(place, reason, self._shown_name)
        if self._model_name is not None:
            self._problems.left_out.add(self._model_name)

    def report_names(self) -> None:
        """Report fields that are not known and, unless it cannot be asked at all, those that are not supported."""
        report = warn_unknown if self._reason is not None else warn_ignored
        report(self._entry, MODEL_LIST_ENTRY, self._problems)
        report(self._params_section, LITELLM_PARAMS, self._problems)
        report(self._info_section, MODEL_INFO, self._problems, near_misses_only=True)

    def read(self) -> Deployment | None:
        """Return the deployment; None if it is left out, or if an error was noted that prevents reading it."""
        before = self._problems.count
        entry = self._entry.read(ModelEntry)
        params = None if self._params_section.node is None else self._params_section.read(LitellmParams)
        self._info = self._info_section.read(ModelInfo) or ModelInfo()
        if entry is not None:
            self._shown_name = safe_name(entry.model_name)
            self._model_name = entry.model_name
        if entry is None or params is None:
            return None
        self._params = params
        if entry.model_name in REFUSED_BY_CURSOR:
            self._problems.warn(
                self._entry.place("model_name"),
                f"is a name that Cursor refuses itself, without a request: in Cursor use an alias, such as "
                f"custom-{entry.model_name}",
            )
        if params.custom_llm_provider is None and self._params_section.get("custom_llm_provider") is not None:
            return None  # which has been noted
        provider, model = split_model(params.model)
        if named := params.custom_llm_provider:
            provider, model = named, params.model.removeprefix(f"{named}/")
        found = self._model(provider, model, entry.model_name)
        self._api = choose_api(found, self._params_section, params, self._info)
        if self._api.kind is None:
            self._reason = self._api.reason
            if self._api.other_mode:
                self._shown_name += f" ({self._api.other_mode})"
                self._model_name = None
            self._problems.forget_errors(before)  # those of fields that do not matter then
            return None
        if "*" in found.name and "*" not in entry.model_name:
            self._problems.error(
                self._params_section.place("model"),
                "contains a *, but model_name does not: write the same * there, or name one model here",
            )
        self.id = self._read_id()
        self._limits, self._key_limits = deployment_limits(entry, params, self._info, self._defaults.parallel)
        if provider == "canned":
            return self._canned(entry.model_name, found.name)
        return self._remote(entry.model_name, provider or COMPATIBLE, found.row, without_api(found.name))

    def _model(self, provider: str | None, written: str, asked_for: str) -> EntryModel:
        """Return the entry's model, with the provider's row as it is for that model."""
        row = PROVIDERS.get(provider or "", UNKNOWN)
        name = row.named(written)
        row = row.of_model(without_api(name))
        base = self._params.api_base or self._params.base_url or self._environment.first_of(row.base_names)
        row, missing = placed(row, written, base, self._params, self._environment)
        bare = self._params.model if self._params.model.startswith("gemini-") else ""
        return EntryModel(provider=provider, row=row, name=name, asked_for=asked_for, missing=missing, bare=bare)

    def _read_id(self) -> str | None:
        found, node = self._info.id, self._info_section.get("id")
        return node.raw if isinstance(found, int) and node is not None else None if found is None else str(found)

    def _timeouts(self) -> Timeouts:
        """Map LiteLLM's two durations to ours, as ``docs/config.md`` explains."""
        timeout_s = self._params.timeout or self._params.request_timeout or self._defaults.timeout_s
        stream_timeout_s = self._params.stream_timeout or self._defaults.stream_timeout_s
        usual = Timeouts()
        return Timeouts(
            headers_s=timeout_s or usual.headers_s,
            first_event_s=stream_timeout_s or timeout_s or usual.first_event_s,
            idle_s=stream_timeout_s or timeout_s or usual.idle_s,
            total_s=self._defaults.total_s,
        )

    def _canned(self, model_name: str, model: str) -> Deployment | None:
        place = self._params_section.place("model")
        kind, colon, name = model.partition(":")
        if colon and kind == "replay" and name:
            file = Path(self._node.source).parent / name
            if not os.path.isfile(file):  # unlike Path.is_file, it does not raise for any name
                self._problems.error(
                    place,
                    f"the file {file} does not exist: expected a recorded stream, relative to this file",
                )
                return None
            model = f"replay:{file.resolve()}"
        elif is_timed(model):
            try:
                parse_timing(model)
            except ValueError as error:
                self._problems.error(place, f"has an invalid script: {error}")
                return None
        elif model not in CANNED:
            hint = did_you_mean(model, (*CANNED, "timed"), cutoff=0.6)
            self._problems.error(
                place,
                f"is not a canned model: expected canned/{', canned/'.join(CANNED)}, canned/timed:<script> or "
                f"canned/replay:<file.sse>{hint}",
            )
            return None
        return Deployment(
            id="", model_name=model_name, model=model, provider="canned", kind="canned", url="",
            timeouts=self._timeouts(), transport=self._defaults.transport, limits=self._limits,
            key_limits=self._key_limits,
        )  # fmt: skip

    def _remote(self, model_name: str, provider: str, known: Provider, model: str) -> Deployment | None:
        kind, params = self._api.kind, self._params
        assert kind is not None
        url = self._url(provider, known, kind, model)
        # Without an address too, so that all that is missing is reported together.
        reader = HeaderReader(self._params_section, params)
        headers = reader.read(provider, known, APIS[kind], url or "")
        if url is None:
            return None
        deployment = Deployment(
            id="", model_name=model_name, model=model, provider=provider, kind=kind, url=url, headers=headers,
            token=read_token(self._params_section, params, self._tokens),
            timeouts=self._timeouts(), transport=self._defaults.transport, forward_fields=self._forward_fields(),
            weight=1.0 if params.weight is None else params.weight, order=params.order or 0,
            parameters=read_parameters(self._params_section, params), is_chat=self._api.is_chat,
            health_check=self._health_check(provider, known, model),
            # LiteLLM has one for its SDKs, and one for its router.
            max_retries=first((params.max_retries, params.num_retries)),
            max_input_tokens=self._info.max_input_tokens or None,
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
        named, timeout_s = self._info.health_check_model, self._info.health_check_timeout
        if named is not None:
            model = without_api(known.named(named.removeprefix(f"{provider}/")))
        if self._info.disable_background_health_check or "*" in model:
            return None
        return HealthCheck(model=model) if timeout_s is None else HealthCheck(model=model, timeout_s=timeout_s)

    def _with_chat(self, deployment: Deployment, known: Provider) -> Deployment:
        """Return the deployment, with its form in Chat Completions if nobody has said that its server has Responses.

        The provider's own server has what its row in the table says.
        """
        if (
            deployment.kind != "responses"
            or self._api.is_named
            or is_openai_itself(deployment.provider, deployment.url)
        ):
            return deployment
        own = default_url(known, RESPONSES)
        if known.needs_key and own is not None and is_same_owner(deployment.url, own):
            return deployment
        url = self._url(deployment.provider, known, "chat", deployment.model)
        return deployment if url is None else replace(deployment, on_chat=replace(deployment, kind="chat", url=url))

    def _forward_fields(self) -> frozenset[str]:
        """Return the fields that the deployment forwards although they choose another model."""
        names = self._params.forward_fields or ()
        for name in names:
            if name not in FORWARDABLE:
                hint = did_you_mean(name, sorted(FORWARDABLE), cutoff=0.6)
                self._problems.error(
                    self._params_section.place("forward_fields"),
                    f"lists {safe_word(name) or 'a field'}, which needs no permission: expected some of "
                    f"{', '.join(sorted(FORWARDABLE))}{hint}",
                )
        return frozenset(names)

    def _url(self, provider: str, known: Provider, kind: UpstreamKind, model: str) -> str | None:
        version, section = self._params.api_version, self._params_section
        place = section.place("base_url" if section.get("api_base") is None and section.get("base_url") else "api_base")
        base = self._params.api_base or self._params.base_url
        if not names_base(section):
            base = self._environment.first_of(known.base_names)
            if base is None and (usual := default_url(known, APIS[kind])) is not None:
                return usual
            if base is None and known.base_names:
                self._environment.note_unset(place, known.base_names[0])
            elif base is None:
                expected = kinds_of(LitellmParams)["api_base"].expected()
                self._problems.error(place, f"is missing: provider {safe_name(provider)} needs {expected}")
        if base is None:
            return None
        if problem := base_problem(base):
            self._problems.error(place, problem)
            return None
        if version is not None and not _VERSION.match(version):
            self._problems.error(
                section.place("api_version"),
                "contains a character that is not allowed in a version: expected text such as 2025-04-01-preview",
            )
            return None
        if kind not in known.dated_kinds:
            return endpoint_url(base, known, APIS[kind])
        url = azure_url(base, version, APIS[kind], model)
        if "/deployments/*/" in url:
            self._problems.error(
                section.place("model"),
                "contains a *, which Azure's dated addresses cannot have: remove api_version, or name one model here",
            )
            return None
        return url
