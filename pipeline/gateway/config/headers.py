"""The headers of a deployment: its key in the form that the provider expects, and the user's own headers.

A key that is not in the file comes from the provider's variable, and is sent to that provider only.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.gateway.config.fields import Section, secret_problem
from pipeline.gateway.config.litellm_sections import LitellmParams
from pipeline.gateway.config.problems import FieldPlace, safe_name
from pipeline.gateway.config.urls import default_url, is_same_owner
from stages.upstreams.provider import Provider
from stages.wire.api import Api

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110 section 5.6.2
_OURS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "content-type", "accept", "accept-encoding"}
    | {"expect", "te", "trailer", "upgrade"}
)
"""Headers that frame the request, or that the upstream client depends on."""
_CREDENTIALS = ("authorization", "api-key", "x-api-key", "x-goog-api-key")


class HeaderReader:
    """Reads the headers of one entry of ``model_list``.

    Args:
        section: its ``litellm_params``, for places in messages.
        params: the same, as it was read.
    """

    def __init__(self, section: Section, params: LitellmParams) -> None:
        self._environment = section.environment
        self._problems = section.problems
        self._section = section
        self._params = params

    def read(self, provider: str, known: Provider, api: Api[Any], url: str) -> tuple[tuple[str, str], ...]:
        """Return the headers; the user's own replace ours with the same name."""
        headers: dict[str, tuple[str, str]] = {}
        if key := self._key(provider, known, api, url):
            key = key.removeprefix(known.key_prefix)
            is_bearer = known.key_header == "authorization"
            headers[known.key_header] = (known.key_header, f"Bearer {key}" if is_bearer else key)
            if api.key_header is not None:
                headers[api.key_header] = (api.key_header, key)
        headers.update((name, (name, value)) for name, value in api.headers)
        if organization := self._params.organization:
            headers["openai-organization"] = ("openai-organization", organization)
        for field in ("headers", "extra_headers"):
            for name, value in self._extra(field):
                headers[name.lower()] = (name, value)
        return tuple(headers.values())

    def _key(self, provider: str, known: Provider, api: Api[Any], url: str) -> str | None:
        if self._section.get("token_command") is not None:
            return None
        if self._section.get("api_key") is not None:
            return self._params.api_key
        has_base = any(self._section.get(name) is not None for name in ("api_base", "base_url"))
        own = default_url(known, api) or known.origin
        is_default = own is None or not has_base or is_same_owner(url, own)
        key = self._environment.first_of(known.key_names)
        if key is not None and is_default:
            if problem := secret_problem(key):
                self._problems.error(
                    FieldPlace("", None, f"environment variable {' or '.join(known.key_names)}"), problem
                )
                return None
            return key
        if key is not None:
            self._problems.warn(
                self._section.place("api_key"),
                f"is missing: requests go out without a key, since {known.key_names[0]} is not for this api_base; "
                f"write api_key: os.environ/{known.key_names[0]} if it is",
            )
        elif known.needs_key and is_default and not self._has_credentials():
            if known.key_names:
                self._environment.note_unset(self._section.place("api_key"), known.key_names[0])
            else:
                self._problems.error(
                    self._section.place("api_key"),
                    f"is missing: provider {safe_name(provider)} needs text such as os.environ/NAME",
                )
        return None

    def _has_credentials(self) -> bool:
        """Return whether one of the user's own headers carries the key."""
        nodes = (self._params.extra_headers, self._params.headers)
        return any(
            name.lower() in _CREDENTIALS
            for node in nodes
            if node is not None and isinstance(node.value, dict)
            for name in node.value
        )

    def _extra(self, field: str) -> list[tuple[str, str]]:
        good: list[tuple[str, str]] = []
        for name, value in Section(self._section.get(field), self._environment):
            if not _TOKEN.match(name):
                self._problems.error(
                    value.place, "the header's name contains a character that HTTP does not allow there"
                )
                continue
            if name.lower() in _OURS:
                self._problems.warn(value.place, "is a header that headrace sets itself: this one is not sent")
                continue
            if isinstance(value.value, dict | list | None):
                self._problems.error(value.place, f"{value.found()}, expected the text of a header")
                continue
            text = self._environment.fill_in(value) if isinstance(value.value, str) else value.raw
            if text is None:
                continue
            text = text.strip()
            if not text.isascii() or not text.isprintable():
                self._problems.error(
                    value.place,
                    "the header's value contains a line break, a control character or one that is not ASCII: remove it",
                )
                continue
            good.append((name, text))
        return good
