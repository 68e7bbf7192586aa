"""The commands for those who write stages: stages, new-stage and run-stage."""

from __future__ import annotations

import argparse
import sys

from pipeline.gateway.help_text import Commands, add_command
from pipeline.registry import discover
from stages.chaos import CHAOS

KINDS = ("event", "codec", "run", "around", "observer")
"""What `new-stage` can write: `pipeline.gateway.new_stage.KINDS`, which is not loaded to parse a command line."""
SHOWN = ("events", "figures", "both")
"""What `run-stage` can print."""


def add_stage_commands(commands: Commands) -> None:
    """Add the commands to the parser of ``headrace``. Nothing heavy is imported before one of them runs."""
    stages = add_command(
        commands,
        "stages",
        summary="list the built-in stages and the installed ones",
        description="List the built-in stages, those that are installed, and those that are installed but broken.",
        example="headrace stages",
    )
    stages.set_defaults(run=_stages)

    new_stage = add_command(
        commands,
        "new-stage",
        summary="write a package with a stage of your own, and its test",
        description="Write a package with a stage of your own, its test and a benchmark, and say how to install it.",
        example="headrace new-stage strip_thinking --kind event",
    )
    new_stage.add_argument("name", metavar="NAME", help="a verb phrase in snake_case, such as strip_thinking")
    kinds = ", ".join(KINDS)
    new_stage.add_argument("--kind", required=True, choices=KINDS, metavar="KIND", help=f"one of {kinds}")
    new_stage.add_argument("--into", metavar="FOLDER", help="a folder that does not exist (headrace-NAME)")
    new_stage.set_defaults(run=_new_stage)

    run_stage = add_command(
        commands,
        "run-stage",
        summary="run one stage on the recorded stream of an upstream",
        description="Run one stage on the recorded stream of an upstream; print what comes out, and how long it took.",
        example="headrace run-stage strip_thinking:strip_thinking answer.sse",
    )
    run_stage.add_argument("stage", metavar="MODULE:STAGE", help="a stage or a Plugin, as an entry point names it")
    run_stage.add_argument("recording", metavar="FILE.sse", help="what an upstream has streamed")
    run_stage.add_argument(
        "--options", metavar="JSON", default="{}", help="the options of the Plugin, a JSON object (%(default)s)"
    )
    run_stage.add_argument("--show", choices=SHOWN, default="both", help="what to print (%(default)s)")
    run_stage.set_defaults(run=_run_stage)


def _stages(options: argparse.Namespace) -> int:
    from pipeline.gateway.reference import built_in_stages

    for name, summary in built_in_stages():
        print(f"{name:20} {summary}")
    plugins = discover()
    print(
        "\ninstalled:"
        if plugins
        else ""
        if plugins.broken
        else "\nno other stages are installed; docs/writing-a-stage.md shows how"
    )
    for plugin in plugins.values():
        print(f"{plugin.name:20} {plugin.summary}")
    print("\nfor experiments:")
    for plugin in CHAOS:
        print(f"{plugin.name:20} {plugin.summary}")
    if plugins.broken:
        print("\ninstalled, but broken:")
    for name, why in plugins.broken.items():
        print(f"{name:20} {why}")
    return 0


def _new_stage(options: argparse.Namespace) -> int:
    from pipeline.gateway.new_stage import write_new_stage

    print(write_new_stage(options.name, options.kind, options.into))
    return 0


def _run_stage(options: argparse.Namespace) -> int:
    from pipeline.gateway.run_stage import run_stage

    ran = run_stage(options.stage, options.recording, options.options)
    if options.show != "figures":
        for line in ran.lines:
            print(line)
    if options.show != "events":
        print(ran.figures)
    if ran.failure is not None:
        print(ran.failure, file=sys.stderr)
        return 1
    return 0
