"""The ``headrace`` command: serve, look at a configuration, write a stage, and study where the time goes."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import distributions, version
from pathlib import Path

import msgspec
from msgspec.structs import replace

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.describe import CheckedConfig, checked, describe, describe_failure
from pipeline.gateway.config.keys import HASH_PREFIX
from pipeline.gateway.config.load import (
    MASTER_KEY_NAMES,
    ConfigError,
    config_files,
    load_settings,
    parse_settings,
)
from pipeline.gateway.config.pipeline_section import FLAGS
from pipeline.gateway.config.problems import Problem
from pipeline.gateway.config.settings import PipelineSettings, Settings
from pipeline.gateway.situations.command import add_situation
from pipeline.gateway.supervision import Inherited
from pipeline.gateway.watching import code_folders
from pipeline.registry import PluginError, Plugins, discover
from pipeline.study.commands import add_commands
from pipeline.study.live_commands import add_live_commands
from stages.chaos import CHAOS

DISTRIBUTION = "headrace"
KINDS = ("event", "codec", "run", "around", "observer")
"""What `new-stage` can write: `pipeline.gateway.new_stage.KINDS`, which is not loaded to parse a command line."""
MODEL_APIS = ("chat", "responses", "anthropic")
"""The APIs that `study` can ask an upstream by."""
INTERRUPTED = 128 + 2
"""What a shell calls the status of a command that Ctrl-C has ended: 128, and the number of the signal."""
SHOWN = ("events", "figures", "both")
"""What `run-stage` can print."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status.

    It is 0, 1 for a failure, 2 for an invalid configuration or command line, or `INTERRUPTED`. The commands that go on
    until Ctrl-C end with 0 then.
    """
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as group:  # from a nursery, before it is told of signals
        if group.split(KeyboardInterrupt)[1] is not None:
            raise
        return INTERRUPTED


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    # As this process was started: in a worker, whatever has replaced a part of it does so too.
    again = sys.orig_argv[1:] if arguments is None else ["-m", "pipeline.gateway", *arguments]
    options.program = [sys.executable, *again]
    try:
        check_ownership()
        status: int = options.run(options)
        sys.stdout.flush()
    except ConfigError as error:
        print(describe_failure(error), end="", file=sys.stderr)
        return 2
    except PluginError as error:
        for problem in error.problems or (f"headrace: {error}",):
            print(problem, file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit would fail again
        return 1
    except (CommandError, OSError) as error:
        print(f"headrace: {error}", file=sys.stderr)
        return 2
    return status


def check_ownership() -> None:
    """Check that no other distribution has overwritten our packages, whose names are generic (ADR 0001).

    Raises:
        PluginError: if one has; the message names it.
    """
    # Not importlib.metadata.packages_distributions: it reads every line of every installed file list, which takes a
    # fifth of our startup time.
    for distribution in distributions():
        files = "\n" + (distribution.read_text("RECORD") or "")
        top_level = (distribution.read_text("top_level.txt") or "").split()
        for package in ("pipeline", "stages"):
            if f"\n{package}/" not in files and package not in top_level:
                continue
            if (other := distribution.metadata["Name"]) != DISTRIBUTION:
                raise PluginError(
                    f"the installed distribution {other!r} also has a package named {package!r}, and one overwrites "
                    "the other: install headrace in a virtual environment of its own"
                )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headrace", description="A gateway between Cursor and any model.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"headrace {version(DISTRIBUTION)}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="serve a configuration")
    dev = commands.add_parser("dev", help="serve a configuration while you work on it, or on a stage")
    for command in (serve, dev):
        _add_serve_arguments(command)
    serve.set_defaults(reload=False, watch=[], environ={})
    dev.add_argument("--reload", action="store_true", help="new workers when the code of an installed stage changes")
    dev.add_argument(
        "--watch", metavar="FOLDER", action="append", default=[], help="another folder of code; may be repeated"
    )
    dev.set_defaults(environ={"HEADRACE_LOG_FORMAT": "text", "HEADRACE_WATCH_CONFIG": "true"})

    demo = commands.add_parser("demo", help="serve the embedded models: no key, no network")
    demo.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    demo.add_argument("--port", type=int, default=PipelineSettings().port, help="port to listen on (%(default)s)")
    demo.set_defaults(run=_demo)

    study = commands.add_parser(
        "study", help="see where the time of each request to an upstream goes: no configuration"
    )
    study.add_argument("--upstream", metavar="URL", required=True, help="its address, such as http://localhost:8000/v1")
    study.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    study.add_argument("--port", type=int, help=f"port to listen on ({PipelineSettings().port}, or a free one)")
    study.add_argument("--record", metavar="FILE", help="write a recording, for the other commands")
    study.add_argument("--json", action="store_true", help="print each request as a line of JSON")
    study.add_argument(
        "--model-api", choices=MODEL_APIS, default="chat", help="the API that the upstream is asked by (%(default)s)"
    )
    study.set_defaults(run=_study)

    check = commands.add_parser("check-config", help="show what a configuration means, or what is wrong with it")
    check.add_argument("file", metavar="FILE")
    check.add_argument("--strict", action="store_true", help="exit with 1 if there is any warning")
    check.add_argument("--json", action="store_true", help="print a JSON document, also about a file with errors")
    check.set_defaults(run=_check_config)

    graph = commands.add_parser("graph", help="show the pipelines of a configuration, stage by stage, and its models")
    graph.add_argument("file", metavar="CONFIG")
    graph.add_argument("--url", help="a server with this configuration: show the state of its deployments")
    graph.add_argument("--key", help="its master key (that of the configuration, or the variable HEADRACE_MASTER_KEY)")
    graph.set_defaults(run=_graph)

    stages = commands.add_parser("stages", help="list the built-in stages and the installed ones")
    stages.set_defaults(run=_stages)

    new_stage = commands.add_parser("new-stage", help="write a package with a stage of your own, and its test")
    new_stage.add_argument("name", metavar="NAME", help="a verb phrase in snake_case, such as strip_thinking")
    kinds = ", ".join(KINDS)
    new_stage.add_argument("--kind", required=True, choices=KINDS, metavar="KIND", help=f"one of {kinds}")
    new_stage.add_argument("--into", metavar="FOLDER", help="a folder that does not exist (headrace-NAME)")
    new_stage.set_defaults(run=_new_stage)

    run_stage = commands.add_parser("run-stage", help="run one stage on the recorded stream of an upstream")
    run_stage.add_argument("stage", metavar="MODULE:STAGE", help="a stage or a Plugin, as an entry point names it")
    run_stage.add_argument("recording", metavar="FILE.sse", help="what an upstream has streamed")
    run_stage.add_argument("--options", metavar="JSON", default="{}", help="the options of the Plugin, a JSON object")
    run_stage.add_argument("--show", choices=SHOWN, default="both", help="what to print (%(default)s)")
    run_stage.set_defaults(run=_run_stage)

    add_situation(commands)
    add_commands(commands)
    add_live_commands(commands)

    docs = commands.add_parser("docs", help="write the generated pages of the documentation")
    docs.add_argument("--write", metavar="FOLDER", required=True)
    docs.set_defaults(run=_docs)
    return parser


def _add_serve_arguments(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--config", "-c", metavar="FILE", required=True, help="a LiteLLM-compatible config.yaml")
    serve.add_argument("--host", help="address to listen on (pipeline_settings.host)")
    serve.add_argument("--port", type=int, help="port to listen on (pipeline_settings.port)")
    serve.add_argument("--workers", type=int, help="processes (pipeline_settings.workers)")
    serve.add_argument("--inherited", type=Inherited.parse, help=argparse.SUPPRESS)  # from the supervisor to a worker
    serve.add_argument("--check", action="store_true", help=argparse.SUPPRESS)  # by the supervisor, before a reload
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    flags = {f"--{name}": str(value) for name in FLAGS if (value := getattr(options, name)) is not None}
    environ = {**options.environ, **os.environ, **flags}
    settings = load_settings(options.config, environ)
    if options.check:
        _check_stages(settings)
        return 0
    if options.inherited is None:
        from pipeline.gateway.supervision import supervise

        for folder in options.watch:
            if not os.path.isdir(folder):
                raise CommandError(f"--watch {folder}: there is no such folder")
        code = [*code_folders(), *map(Path, options.watch)] if options.reload or options.watch else []
        files = partial(config_files, options.config)
        reload = partial(load_settings, options.config, environ)
        return supervise(settings, options.program, reread=reload, files=files, code=code)
    from pipeline.gateway.service import serve  # here because it takes half a second

    def reread() -> tuple[Settings, Plugins]:
        found = known_plugins()
        return _with_warnings(load_settings(options.config, environ), found), found

    plugins = known_plugins()
    return serve(_with_warnings(settings, plugins), plugins=plugins, inherited=options.inherited, reread=reread)


def _check_stages(settings: Settings) -> Plugins:
    """Check that the configured stages fit; return what is installed."""
    from pipeline.gateway.generation import Generation

    plugins = known_plugins()
    Generation(settings, plugins=plugins, on_end=lambda record: None)
    return plugins


def _with_warnings(settings: Settings, plugins: Plugins) -> Settings:
    """Return the settings with the warnings about stages."""
    from pipeline.gateway.insertions import unmatched_models

    names = [deployment.model_name for deployment in settings.deployments]
    more = (*unmatched_models(settings.pipeline.stages, names), *plugins.warnings)
    found = (*settings.found_warnings, *(Problem("", None, "", text) for text in more))
    return replace(settings, found_warnings=found)


def known_plugins() -> Plugins:
    """Return what is installed, and the stages for experiments, unless something installed has their names."""
    plugins = discover()
    for plugin in CHAOS:
        if plugin.name not in plugins.broken:
            plugins.setdefault(plugin.name, plugin)
    return plugins


DEMO_CONFIG = """\
model_list:
  - model_name: headrace-echo
    litellm_params: {model: canned/echo}
  - model_name: headrace-story
    litellm_params: {model: canned/story}
  - model_name: headrace-agent
    litellm_params: {model: canned/agent}
general_settings:
  master_key: os.environ/HEADRACE_DEMO_KEY
"""

WELCOME = """\
headrace serves its embedded models on http://{host}:{port} (no upstream and no network needed).

  key     {key}

Try it, with streaming and without:

  curl -N http://{host}:{port}/cursor/chat/completions \\
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
    -d '{{"model": "headrace-story", "input": "Tell me a story", "stream": true}}'

  curl http://{host}:{port}/cursor/chat/completions \\
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
    -d '{{"model": "headrace-echo", "input": "Hello there"}}'

In Cursor (Settings > Models): OpenAI API key = the key above, Override OpenAI Base URL = https://YOUR-HOST/cursor,
then add the custom models headrace-echo, headrace-story and headrace-agent. Cursor calls from its own servers, so
YOUR-HOST must be reachable from the internet by https: a tunnel or a proxy in front of this port.

Where the time goes, live:

  http://{host}:{port}/latency#key={key}

Your own models: headrace serve --config config.yaml
"""


def _demo(options: argparse.Namespace) -> int:
    from pipeline.gateway.service import serve

    key = f"sk-{secrets.token_urlsafe(24)}"
    environ = {
        "HEADRACE_DEMO_KEY": key,
        "--host": options.host,
        "--port": str(options.port),
        "HEADRACE_LOG_FORMAT": "text",
    }
    settings = parse_settings(DEMO_CONFIG, source="the demo", environ=environ)

    def welcome(host: str, port: int) -> None:
        print(WELCOME.format(host=host, port=port, key=key), flush=True)

    return serve(settings, plugins=discover(), on_listening=welcome)


def _study(options: argparse.Namespace) -> int:
    from pipeline.gateway.study_proxy import study_upstream

    return study_upstream(
        options.upstream,
        api=options.model_api,
        host=options.host,
        port=options.port,
        file=options.record,
        is_json=options.json,
    )


def _check_config(options: argparse.Namespace) -> int:
    try:
        settings = _checked_settings(options.file)
    except ConfigError as error:
        if not options.json:
            raise
        document = CheckedConfig(options.file, False, error.errors, error.found_warnings)
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
        return _with_warnings(settings, _check_stages(settings))
    except PluginError as error:
        raise ConfigError(error.problems or [f"headrace: {error}"], settings.found_warnings) from error


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


def _graph(options: argparse.Namespace) -> int:
    settings = load_settings(options.file)
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


def _docs(options: argparse.Namespace) -> int:
    from pipeline.gateway.reference import pages

    for name, text in pages(Path(options.write)).items():
        Path(options.write, name).write_text(text, encoding="utf-8")
    return 0
