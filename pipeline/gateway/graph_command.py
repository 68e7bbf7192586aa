"""``headrace graph``: its arguments, and the key for a server that runs."""

from __future__ import annotations

import argparse
import os
import sys

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.finding import find_config
from pipeline.gateway.config.keys import HASH_PREFIX
from pipeline.gateway.config.load import MASTER_KEY_NAMES, load_settings
from pipeline.gateway.config.settings import Settings
from pipeline.gateway.help_text import Commands, add_command
from pipeline.gateway.installed import known_plugins
from pipeline.gateway.serve_command import CONFIG_ROW
from pipeline.study.commands import set_run


def add_graph(commands: Commands) -> None:
    """Add the command to the parser of ``headrace``."""
    graph = add_command(
        commands,
        "graph",
        summary="show the pipelines and models of a configuration",
        description="""
            Show the pipelines of a configuration, stage by stage, and its models with their deployments. With --url,
            the state of each deployment in a server that runs.
        """,
        example="""
            headrace graph config.yaml
            headrace graph config.yaml --url http://127.0.0.1:4000
        """,
        environment=[CONFIG_ROW, (MASTER_KEY_NAMES[0], "the master key for --url, if the configuration has none")],
    )
    graph.add_argument("file", metavar="FILE", nargs="?", help="the configuration")
    graph.add_argument("--url", help="a server with this configuration: show the state of its deployments")
    graph.add_argument(
        "--key", help=f"its master key (that of the configuration, or the variable {MASTER_KEY_NAMES[0]})"
    )
    set_run(graph, _graph)


def _graph(options: argparse.Namespace) -> int:
    settings = load_settings(find_config(options.file))
    from pipeline.gateway.graph_page import graph_page
    from pipeline.gateway.health_page import fetch_health

    live = None if options.url is None else fetch_health(options.url, _master_key(options, settings))
    plugins = known_plugins()
    for warning in plugins.warnings:
        print(f"headrace: {warning}", file=sys.stderr)
    print(graph_page(settings, plugins, live), end="")
    return 0


def _master_key(options: argparse.Namespace, settings: Settings) -> str:
    """Return the master key to send to a running server: it need not be among the arguments, which others can read."""
    configured = [settings.master_key or "", *(os.environ.get(name, "").strip() for name in MASTER_KEY_NAMES)]
    for key in [options.key or "", *(one for one in configured if not one.startswith(HASH_PREFIX))]:
        if key:
            return str(key)
    raise CommandError(
        "the state of a running server needs its master key, which is not in the configuration in plain text: "
        f"set the environment variable {MASTER_KEY_NAMES[0]}, or write it after --key"
    )
