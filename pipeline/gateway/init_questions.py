"""The questions of ``headrace init``, on a terminal."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Mapping

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.env_file import ENV_FILE
from pipeline.gateway.config.model_list import REFUSED_BY_CURSOR
from pipeline.gateway.config.urls import base_problem
from pipeline.gateway.first_config import (
    MASTER_KEY,
    NONE,
    OFFERS,
    FirstModel,
    Offer,
    Wish,
    checked_key,
    is_like_cursors,
    needs_base,
    needs_key,
    offer_of,
    variable_of,
)
from pipeline.registry import did_you_mean
from stages.upstreams.providers import PROVIDERS


def ask_all(environ: Mapping[str, str]) -> Wish:
    """Ask for everything.

    Raises:
        CommandError: if the input ends; then nothing has been written.
    """
    try:
        return _ask_all(environ)
    except EOFError:
        sys.stdout.write("\n")
        raise CommandError("the answers have ended: nothing was written") from None
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        raise


def _ask_all(environ: Mapping[str, str]) -> Wish:
    _say("This writes a configuration. Enter takes what is in brackets; Ctrl-C ends it, and nothing is written.\n")
    words = [*OFFERS, NONE]
    for number, word in enumerate(words, 1):
        title = (
            "none yet: only the embedded models, without a key and a network" if word == NONE else OFFERS[word].title
        )
        _say(f"  {number:2}  {word:11} {title}")
    word = _ask(
        "\nWhere does your model run? A number, a name, or any prefix of LiteLLM's", "openai", _provider_problem
    )
    word = words[int(word) - 1] if word.isdecimal() else word
    offer = offer_of(word)
    if word == NONE or offer is None:
        return Wish(choice=None, keeps_keys=_keeps_keys(environ, None))
    api_base = None
    if offer.api_base is not None or needs_base(offer):
        api_base = _ask("Its address", offer.api_base, base_problem)
    model = _ask("The model, by its name there", offer.model)
    name = _ask("Its name in Cursor", offer.name, _name_problem)
    variable, key = _ask_key(offer, environ)
    choice = FirstModel(prefix=offer.prefix, model=model, name=name, api_base=api_base, variable=variable)
    return Wish(choice=choice, key=key, keeps_keys=_keeps_keys(environ, key))


def _ask_key(offer: Offer, environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the variable of the key, None if there is none, and the key if one was typed."""
    variable = variable_of(offer, environ)
    if environ.get(variable, "").strip():
        _say(f"The key is that in {variable}, which is set.")
        return variable, None
    later = f"set {variable} later" if needs_key(offer) else "none"
    while True:
        key = getpass.getpass(f"Its key (not shown as you type; Enter: {later}): ").strip()
        if not key:
            return (variable if needs_key(offer) else None), None
        try:
            return variable, checked_key(key)
        except CommandError as error:
            _say(f"  {error}")


def _keeps_keys(environ: Mapping[str, str], key: str | None) -> bool:
    if key is None and environ.get(MASTER_KEY, "").strip():
        return False  # there is nothing to keep
    answer = _ask(f"Keep the keys in {ENV_FILE}, which only you can read? yes or no", "yes", _yes_problem)
    return answer.lower().startswith("y")


def _yes_problem(answer: str) -> str | None:
    return None if answer.lower() in ("y", "yes", "n", "no") else "write yes or no"


def _provider_problem(word: str) -> str | None:
    if word.isdecimal():
        return None if 1 <= int(word) <= len(OFFERS) + 1 else f"there are {len(OFFERS) + 1} choices"
    if word == NONE or offer_of(word) is not None:
        return None
    return f"there is no provider {word!r}{did_you_mean(word, (*OFFERS, *PROVIDERS))}"


def _name_problem(name: str) -> str | None:
    if name in REFUSED_BY_CURSOR or is_like_cursors(name):
        return f"Cursor may take that for a model of its own, and not ask headrace: write another, such as my-{name}"
    return None


def _ask(question: str, usual: str | None, problem_of: Callable[[str], str | None] = lambda answer: None) -> str:
    """Return an answer in which nothing is wrong; ``usual`` is that of Enter alone."""
    while True:
        answer = input(f"{question}{f' [{usual}]' if usual else ''}: ").strip() or usual or ""
        problem = problem_of(answer) if answer else "an answer is needed"
        if problem is None:
            return answer
        _say(f"  {problem}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
