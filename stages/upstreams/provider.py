"""What a provider is: its APIs, its addresses, how it wants the key. `stages.upstreams.rows` has the providers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from stages.upstreams import UpstreamKind
from stages.wire.api import Api

BOTH: Final[tuple[UpstreamKind, ...]] = ("responses", "chat")
ALL: Final[tuple[UpstreamKind, ...]] = ("responses", "chat", "anthropic")
CHAT_FIRST: Final[tuple[UpstreamKind, ...]] = ("chat", "responses")
CHAT_OF_ALL: Final[tuple[UpstreamKind, ...]] = ("chat", "responses", "anthropic")
CHAT_ONLY: Final[tuple[UpstreamKind, ...]] = ("chat",)
MESSAGES: Final[tuple[UpstreamKind, ...]] = ("anthropic",)


class AddressPart(Struct, frozen=True, kw_only=True):
    """A part of an address that is different for each user, such as a region.

    Attributes:
        name: as addresses have it, in braces.
        what: as messages have it: "an account id".
        params: the names in ``litellm_params`` that may say it; the first that is there counts.
        variables: the environment variables that may say it, after those.
        default: used if nothing says it; None: then there is no address.
        in_name: finds it in a model's name, where LiteLLM allows that; it counts before everything else.
        host_of: makes the host of it, which addresses have as ``{host}``.
    """

    name: str
    what: str
    params: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    default: str | None = None
    in_name: re.Pattern[str] | None = None
    host_of: Callable[[str], str] | None = None


class ModelRoute(Struct, frozen=True, kw_only=True):
    """What is different for some of a provider's models. None: nothing.

    Attributes:
        models: found in the names of these models.
        kinds: the APIs that they have; none if they cannot be called.
        reason: why they cannot be called, and what to do.
        origin, root, quirks: as of `Provider`.
    """

    models: re.Pattern[str]
    kinds: tuple[UpstreamKind, ...] = ()
    reason: str | None = None
    origin: str | None = None
    root: str | None = None
    quirks: tuple[object, ...] | None = None


class Provider(Struct, frozen=True, kw_only=True):
    """One row of the table.

    Attributes:
        kinds: the APIs that it is known to have; the first is used if the configuration does not say.
        routes: what is different for some models; the first that matches counts, and `of_model` applies it.
        origin: scheme and host if ``api_base`` does not say; None: ``api_base`` is needed.
        root: the path between an ``api_base`` without a path and the endpoint.
        chat_root: the same for Chat Completions, where it differs.
        is_rooted: whether an ``api_base`` with a path, too, gets the root's version if it has none.
        parts: what stands in braces in origin and root.
        foreign_paths: paths of an ``api_base`` that are those of the provider's other APIs, as LiteLLM has them, and
            what is written in their place.
        names: how names of models become the provider's: patterns and what is written in their place.
        key_names: environment variables that may hold the key.
        base_names: environment variables that may hold ``api_base``.
        key_header: how the key is sent: ``authorization`` (Bearer) or a header of its own.
        key_prefix: what LiteLLM writes before some of its keys, which is not sent.
        needs_key: whether it refuses requests without a key, when ``api_base`` is not given.
        signs_in_to: the service that LiteLLM signs in to, where we only take a token.
        token_from: where such a token comes from, as messages have it.
        dated_kinds: the APIs whose addresses depend on ``api_version`` (see `config.urls.azure_url`).
        quirks: what it takes differently, one value for each API in which it does.
    """

    kinds: tuple[UpstreamKind, ...] = BOTH
    routes: tuple[ModelRoute, ...] = ()
    origin: str | None = None
    root: str = "/v1"
    chat_root: str | None = None
    is_rooted: bool = False
    parts: tuple[AddressPart, ...] = ()
    foreign_paths: tuple[tuple[re.Pattern[str], str], ...] = ()
    names: tuple[tuple[re.Pattern[str], str], ...] = ()
    key_names: tuple[str, ...] = ()
    base_names: tuple[str, ...] = ()
    key_header: str = "authorization"
    needs_key: bool = True
    key_prefix: str = ""
    signs_in_to: str | None = None
    token_from: str = "a token as api_key is"
    dated_kinds: tuple[UpstreamKind, ...] = ()
    quirks: tuple[object, ...] = ()

    def named(self, model: str) -> str:
        """Return the provider's name for a model, by that of the configuration."""
        for pattern, written in self.names:
            model = pattern.sub(written, model, count=1)
        return model

    def route_of(self, model: str) -> ModelRoute | None:
        """Return what is different for a model; None if nothing is."""
        return next((route for route in self.routes if route.models.search(model)), None)

    def of_model(self, model: str) -> Provider:
        """Return the row as it is for a model, by the provider's name for it."""
        found = self.route_of(model)
        if found is None:
            return self
        changed = {name: value for name in ("origin", "root", "quirks") if (value := getattr(found, name)) is not None}
        return replace(self, kinds=found.kinds, **changed)

    def with_parts(self, values: Mapping[str, str]) -> Provider:
        """Return the row with ``values`` in the place of the parts of its addresses."""
        filled = dict(values)
        for part in self.parts:
            if part.host_of is not None:
                filled["host"] = part.host_of(values[part.name])
        origin = None if self.origin is None else self.origin.format_map(filled)
        return replace(self, origin=origin, root=self.root.format_map(filled))

    def root_of(self, api: Api[Any]) -> str:
        """Return what comes before the endpoint of an API on the provider's host."""
        if api.name == "chat" and self.chat_root is not None:
            return self.chat_root
        if api.version is not None and not self.root.endswith(api.version):
            return api.version
        return self.root


def compatible(
    origin: str | None,
    *key_names: str,
    root: str = "/v1",
    base: str | tuple[str, ...] = (),
    kinds: tuple[UpstreamKind, ...] = CHAT_ONLY,
    is_rooted: bool = False,
    needs_key: bool = True,
    names: tuple[tuple[re.Pattern[str], str], ...] = (),
    foreign_paths: tuple[tuple[re.Pattern[str], str], ...] = (),
    quirks: tuple[object, ...] = (),
) -> Provider:
    """Return the row of a provider that is called as OpenAI is, by Chat Completions if ``kinds`` does not say else."""
    return Provider(
        kinds=kinds,
        origin=origin,
        root=root,
        is_rooted=is_rooted,
        key_names=key_names,
        base_names=(base,) if isinstance(base, str) else base,
        needs_key=needs_key,
        names=names,
        foreign_paths=foreign_paths,
        quirks=quirks,
    )
