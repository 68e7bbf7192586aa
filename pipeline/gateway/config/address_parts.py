"""The parts of a provider's address that are different for each user: a region, an account, a project."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from msgspec.structs import replace

from pipeline.gateway.config.fields import Environment
from pipeline.gateway.config.litellm_sections import LitellmParams
from stages.upstreams.provider import AddressPart, Provider

_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]*\Z")
"""What a region, an account or a project may be: nothing that would change the host or the path around it."""
_NOBODY: Final = "nobody"
"""What is not known beside an ``api_base``: with it, the provider's domain is still told from a stranger's."""


def placed(
    provider: Provider, written: str, base: str | None, params: LitellmParams, environment: Environment
) -> tuple[Provider, str]:
    """Return the row with its addresses filled in, and what is missing for that, as a reason; empty if nothing is.

    With an ``api_base`` nothing has to be known: what it does not say, and nothing else says, is left away.

    Args:
        provider: the row.
        written: the model's name as the configuration has it, without the provider.
        base: the ``api_base``, if there is one.
        params: the entry's ``litellm_params``.
        environment: where variables come from.
    """
    if not provider.parts:
        return provider, ""
    values: dict[str, str] = {}
    is_known = True
    for part in provider.parts:
        value = _named_by(part, provider, written, base, params, environment)
        if value is not None and _PART.match(value):
            values[part.name] = value
        elif base is not None:
            values[part.name], is_known = _NOBODY, False
        else:
            ways = " or ".join([*part.params[:1], *part.variables[:1]])
            finding = "has none that can stand in an address" if value is not None else "is not known"
            return provider, f"{part.what} is needed for its address, and {finding}: set {ways}, or api_base"
    filled = provider.with_parts(values)
    return filled if is_known else replace(filled, root="/v1"), ""


def _named_by(
    part: AddressPart,
    provider: Provider,
    written: str,
    base: str | None,
    params: LitellmParams,
    environment: Environment,
) -> str | None:
    if part.in_name is not None and (found := part.in_name.search(written)) is not None:
        return found[1]
    if base is not None and provider.origin is not None and f"{{{part.name}}}" in provider.origin:
        pattern = re.escape(provider.origin).replace(re.escape(f"{{{part.name}}}"), "([a-z0-9-]+)")
        parts = urlsplit(base)
        if (found := re.fullmatch(pattern, f"{parts.scheme}://{parts.netloc}")) is not None:
            return found[1]
    for name in part.params:
        text: str | None = getattr(params, name)
        if text is not None:
            return text
    return environment.first_of(part.variables) or part.default
