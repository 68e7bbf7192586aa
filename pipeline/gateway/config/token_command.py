"""``token_command`` of an entry of ``model_list``: a command that prints the deployment's token."""

from __future__ import annotations

import shlex
from typing import Final

from pipeline.gateway.config.fields import Section
from stages.upstreams.token import Token, TokenCommand

_EXPECTED: Final = "a command such as gcloud auth print-access-token, or a list of its words"


def read_token(params: Section, known: dict[TokenCommand, Token]) -> Token | None:
    """Return the token of an entry's ``token_command``: the same as that of others with the same command.

    Args:
        params: the entry's ``litellm_params``.
        known: the tokens of the entries before; a new one is added.
    """
    node = params.get("token_command")
    if node is None:
        return None
    if isinstance(node.value, list):
        words = list(params.texts("token_command", _EXPECTED) or ())
    else:
        text = params.text("token_command", _EXPECTED, secret=True)
        if text is None:
            return None
        try:
            words = shlex.split(text)
        except ValueError:
            params.problems.error(node.place, f"has a quotation mark that is not closed: expected {_EXPECTED}")
            return None
    if not words or any("\0" in word for word in words):
        params.problems.error(node.place, f"names no program: expected {_EXPECTED}")
        return None
    if (key := params.get("api_key")) is not None:
        params.problems.error(key.place, "stands beside a token_command, which is the key: remove one of them")
        return None
    usual = TokenCommand(words=tuple(words))
    command = TokenCommand(
        words=usual.words,
        refresh_s=params.seconds("token_refresh_s") or usual.refresh_s,
        limit_s=params.seconds("token_timeout_s") or usual.limit_s,
    )
    return known.setdefault(command, Token(command))
