"""``headrace check-config``: its arguments, and what it prints."""

from __future__ import annotations

import argparse

import msgspec

from pipeline.gateway.config.describe import CheckedConfig, checked, describe
from pipeline.gateway.config.finding import find_config
from pipeline.gateway.config.load import load_settings
from pipeline.gateway.config.problems import ConfigError
from pipeline.gateway.config.settings import Settings
from pipeline.gateway.help_text import Commands, add_command
from pipeline.gateway.installed import check_stages, with_warnings
from pipeline.gateway.serve_command import CONFIG_ROW
from pipeline.registry import PluginError
from pipeline.study.commands import set_run


def add_check_config(commands: Commands) -> None:
    """Add the command to the parser of ``headrace``."""
    check = add_command(
        commands,
        "check-config",
        summary="show what a configuration means, or what is wrong with it",
        description="""
            Show what a configuration means: deployments, keys, settings and warnings; or all that is wrong with it.
            Nothing is started and nothing is called.
        """,
        example="headrace check-config config.yaml --strict",
        environment=[CONFIG_ROW],
    )
    check.add_argument("file", metavar="FILE", nargs="?", help="the configuration")
    check.add_argument("--strict", action="store_true", help="exit with 1 if there is any warning")
    check.add_argument("--json", action="store_true", help="print a JSON document, also about a file with errors")
    set_run(check, _check_config)


def _check_config(options: argparse.Namespace) -> int:
    file = find_config(options.file)
    try:
        settings = _checked_settings(file)
    except ConfigError as error:
        if not options.json:
            raise
        document = CheckedConfig(file, False, error.errors, error.found_warnings)
    else:
        if not options.json:
            print(describe(settings))
        document = checked(settings)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(document)).decode())
    return 2 if not document.usable else 1 if options.strict and document.warnings else 0


def _checked_settings(file: str) -> Settings:
    """Read a configuration and check that its stages fit.

    Raises:
        ConfigError: if it cannot be used.
    """
    settings = load_settings(file)
    try:
        return with_warnings(settings, check_stages(settings))
    except PluginError as error:
        raise ConfigError(error.problems or [f"headrace: {error}"], settings.found_warnings) from error
