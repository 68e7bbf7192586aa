"""``headrace init``: writes a first config.yaml that works, from questions on a terminal or from flags."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pipeline.gateway.banner import cursor_lines
from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.env_file import ENV_FILE, env_file_of, read_env_file, write_env_file
from pipeline.gateway.config.finding import USUAL_FILE
from pipeline.gateway.config.load import load_settings, parse_settings
from pipeline.gateway.config.urls import base_problem
from pipeline.gateway.first_config import (
    MASTER_KEY,
    NONE,
    OFFERS,
    FirstModel,
    Wish,
    checked_key,
    config_text,
    is_like_cursors,
    needs_base,
    needs_key,
    offer_of,
    variable_of,
)
from pipeline.gateway.help_text import Commands, add_command, program_name
from pipeline.gateway.init_questions import ask_all
from pipeline.gateway.new_key import new_key
from pipeline.registry import did_you_mean
from pipeline.study.files import unwritable
from stages.upstreams.providers import PROVIDERS

STDIN: Final = "-"
_PLACEHOLDER: Final = "sk-not-set-yet-0123456789"
"""Stands for a key that is not set yet, while the file is checked."""


def add_init(commands: Commands) -> None:
    """Add the command to the parser of ``headrace``."""
    init = add_command(
        commands,
        "init",
        summary="write a config.yaml, from a few questions or from flags",
        description=f"""
            Write a config.yaml for one provider of models, check that it can be used, and say what to do next. On a
            terminal it asks; with --provider it asks nothing, and what has no flag has its default. No existing file is
            overwritten without --force.

            Keys are never written into the configuration, which names variables. With --env-file they are kept in
            {ENV_FILE} beside it, which only you can read, and which every command reads together with the
            configuration. Otherwise `export` lines are printed.
        """,
        example="""
            headrace init
            headrace init --provider openai --key-from OPENAI_API_KEY
            headrace init --provider vllm --api-base http://10.0.0.7:8000/v1 --model Qwen3-Coder
        """,
        environment=[
            (MASTER_KEY, "the master key, if there is one already; a new one is made otherwise"),
            ("OPENAI_API_KEY", "the provider's key, under its usual name; each provider has its own"),
        ],
    )
    init.add_argument(
        "--provider", metavar="NAME", help=f"{', '.join(OFFERS)}, {NONE} (embedded models), or a prefix of LiteLLM's"
    )
    init.add_argument("--model", help="the provider's name for the model (a recent one of the provider's)")
    init.add_argument("--name", help="what clients call it; a name that Cursor does not have (my-...)")
    init.add_argument("--api-base", metavar="URL", help="the address of the provider or server (the provider's own)")
    init.add_argument(
        "--key-from",
        metavar="VARIABLE",
        help=f"the variable that has the provider's key (its usual one); {STDIN}: read the key from standard input",
    )
    init.add_argument("--env-file", action="store_true", help=f"keep the keys in {ENV_FILE}, which only you can read")
    init.add_argument("--file", default=USUAL_FILE, help="the file to write (%(default)s)")
    init.add_argument("--force", action="store_true", help="replace a file that exists")
    init.set_defaults(run=_init)


def _init(options: argparse.Namespace) -> int:
    file = Path(options.file)
    _check_target(file, is_forced=options.force)
    environ = {**read_env_file(env_file_of(file)), **os.environ}
    if options.provider is not None:
        wish = _from_flags(options, environ)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        wish = ask_all(environ)
    else:
        raise CommandError(
            "there is no terminal to ask on: name the provider with --provider "
            f"({', '.join(OFFERS)}, {NONE}); --model, --name, --api-base, --key-from, --env-file, --file and --force "
            "are optional"
        )
    _write(file, wish, environ)
    return 0


def _check_target(file: Path, *, is_forced: bool) -> None:
    """Check that the file may be written, before anything is asked.

    Raises:
        CommandError: if it may not.
    """
    if file.is_dir():
        raise CommandError(f"--file {file} is a folder: name a file in it, such as {file / USUAL_FILE}")
    if not file.parent.is_dir():
        raise CommandError(f"--file {file}: there is no folder {file.parent}: make it first, or name another")
    if file.exists() and not is_forced:
        raise CommandError(
            f"{file} exists, and is not overwritten: `{program_name()} check-config {shlex.quote(str(file))}` says "
            "what it means; --file NAME writes another one, --force replaces it"
        )


def _from_flags(options: argparse.Namespace, environ: Mapping[str, str]) -> Wish:
    """Return what the flags say.

    Raises:
        CommandError: if a flag is wrong, or one that is needed is missing.
    """
    word = options.provider
    offer = None if word == NONE else offer_of(word)
    if offer is None:
        if word != NONE:
            raise CommandError(
                f"--provider {word}: there is no such provider: write one of {', '.join(OFFERS)}, {NONE}, or a prefix "
                f"of LiteLLM's, such as groq{did_you_mean(word, (*OFFERS, *PROVIDERS, NONE))}"
            )
        if any((options.model, options.name, options.api_base, options.key_from)):
            raise CommandError(f"--provider {NONE} takes no --model, --name, --api-base and --key-from")
        return Wish(choice=None, keeps_keys=options.env_file)
    model = options.model or offer.model
    if not model:
        raise CommandError(f"--provider {word} needs --model: the name that the model has there")
    api_base = options.api_base or offer.api_base
    if api_base is None and needs_base(offer):
        raise CommandError(f"--provider {word} needs --api-base: its address, such as https://api.example.com/v1")
    if api_base is not None and (problem := base_problem(api_base)):
        raise CommandError(f"--api-base: {problem}")
    variable, key = variable_of(offer, environ), None
    if options.key_from == STDIN:
        if not options.env_file:
            raise CommandError(f"--key-from {STDIN}: the key would be kept nowhere: add --env-file, or name a variable")
        key = checked_key(sys.stdin.readline().strip())
    elif options.key_from is not None:
        if not options.key_from.isidentifier() or not options.key_from.isascii():
            raise CommandError(
                "--key-from: write the name of a variable, such as OPENAI_API_KEY, and not the key itself"
            )
        variable = options.key_from
    has_key = options.key_from is not None or needs_key(offer)
    return Wish(
        choice=FirstModel(
            prefix=offer.prefix,
            model=model,
            name=options.name or offer.name,
            api_base=api_base,
            variable=variable if has_key else None,
        ),
        key=key,
        keeps_keys=options.env_file,
    )


def _write(file: Path, wish: Wish, environ: Mapping[str, str]) -> None:
    """Write the files, check them, and say what to do next.

    Raises:
        CommandError: if they cannot be written.
        ConfigError: if the configuration could not be used; then nothing is written.
    """
    program = program_name()
    where = "" if str(file) == USUAL_FILE else f" {shlex.quote(str(file))}"
    text = config_text(wish.choice, check=f"headrace check-config{where}")
    known = {name for name in (MASTER_KEY, _variable(wish)) if name and environ.get(name, "").strip()}
    new = {} if MASTER_KEY in known else {MASTER_KEY: new_key()}
    if wish.key is not None and wish.choice is not None and wish.choice.variable is not None:
        new[wish.choice.variable] = wish.key
    unset = {name for name in (_variable(wish),) if name and name not in known | new.keys()}
    trial = {**environ, **new, **dict.fromkeys(unset, _PLACEHOLDER)}
    parse_settings(text, source=str(file), environ=trial)
    variables = env_file_of(file)
    kept = new if wish.keeps_keys else {}
    try:
        file.write_text(text, "utf-8")
        if kept:
            write_env_file(variables, kept)
    except OSError as error:
        raise CommandError(unwritable(str(error.filename or file), error)) from None
    settings = load_settings(file, trial)
    say = sys.stdout.write
    what = (
        "the embedded models"
        if wish.choice is None
        else f"{wish.choice.name} is {wish.choice.prefix}/{wish.choice.model}"
    )
    say(f"\n{file}: written and checked: {what}.\n")
    if kept:
        say(f"{variables}: {' and '.join(kept)}; only you can read it, and headrace reads it with {file}.\n")
    for warning in settings.warnings:
        say(f"warning: {warning}\n")
    if wish.choice is not None and is_like_cursors(wish.choice.name):
        say(f"note: Cursor may take {wish.choice.name} for a model of its own: my-{wish.choice.name} is safer there.\n")
    say("\nNext:\n\n")
    variable = _variable(wish)
    if variable in unset or (variable in new and variable not in kept):  # a key that was typed is not shown
        instead = f", or write {variable}=... into {variables}" if kept else ""
        say(f"  export {variable}=...   # your key{instead}\n")
    if MASTER_KEY in new and not kept:
        say(f"  export {MASTER_KEY}={new[MASTER_KEY]}\n")
    say(f"  {program} serve{f' --config{where}' if where else ''}\n\n")
    names = [deployment.model_name for deployment in settings.deployments]
    if MASTER_KEY in new:
        source = f"in {variables}" if kept else "above"
    else:
        source = "of this shell" if os.environ.get(MASTER_KEY, "").strip() else f"in {variables}"
    say("".join(f"{line}\n" for line in cursor_lines(names, f"the {MASTER_KEY} {source}")))


def _variable(wish: Wish) -> str | None:
    return None if wish.choice is None else wish.choice.variable
