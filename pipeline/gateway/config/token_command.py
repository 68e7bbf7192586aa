"""``token_command`` of an entry of ``model_list``: a command that prints the deployment's token."""

from __future__ import annotations

import shlex
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from pipeline.gateway.config.fields import Section
from pipeline.gateway.config.kinds import HIDDEN
from pipeline.gateway.config.litellm_sections import LitellmParams
from stages.upstreams.token import Token, TokenCommand

_EXPECTED: Final = "a command such as gcloud auth print-access-token, or a list of its words"
_Words: TypeAlias = Annotated[tuple[str, ...], Meta(description=_EXPECTED)]
_Line: TypeAlias = Annotated[str, Meta(description=_EXPECTED), HIDDEN]


def read_token(section: Section, params: LitellmParams, known: dict[TokenCommand, Token]) -> Token | None:
    """Return the token of an entry's ``token_command``: the same as that of others with the same command.

    Args:
        section: the entry's ``litellm_params``.
        params: the same, read.
        known: the tokens of the entries before; a new one is added.
    """
    node = params.token_command
    if node is None:
        return None
    words = section.value("token_command", _Words if isinstance(node.value, list) else _Line)
    if words is None:
        return None
    if isinstance(words, str):
        try:
            words = tuple(shlex.split(words))
        except ValueError:
            section.problems.error(node.place, f"has a quotation mark that is not closed: expected {_EXPECTED}")
            return None
    if not words or any("\0" in word for word in words):
        section.problems.error(node.place, f"names no program: expected {_EXPECTED}")
        return None
    if (key := section.get("api_key")) is not None:
        section.problems.error(key.place, "stands beside a token_command, which is the key: remove one of them")
        return None
    usual = TokenCommand(words=words)
    command = TokenCommand(
        words=words,
        refresh_s=params.token_refresh_s or usual.refresh_s,
        limit_s=params.token_timeout_s or usual.limit_s,
    )
    return known.setdefault(command, Token(command))
