"""``headrace serve`` and ``headrace dev``: their arguments, in the supervisor and in its workers."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Final, get_args

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.env_file import ENV_FILE
from pipeline.gateway.config.finding import CONFIG_VARIABLE, USUAL_FILE, find_config
from pipeline.gateway.config.load import config_files, load_settings
from pipeline.gateway.config.pipeline_section import FLAGS
from pipeline.gateway.config.settings import PipelineSettings, Settings
from pipeline.gateway.help_text import Commands, add_command
from pipeline.gateway.installed import check_stages, known_plugins, with_warnings
from pipeline.gateway.logs import LogFormat
from pipeline.gateway.notify_socket import VARIABLE
from pipeline.gateway.supervision import Inherited
from pipeline.gateway.watching import code_folders
from pipeline.registry import Plugins
from pipeline.study.commands import COLOUR_ROW

CONFIG_ROW: Final = (CONFIG_VARIABLE, f"the configuration, if no file is named; without it ./{USUAL_FILE}")
_NAMES: Final = ("NAME", f"whatever the file names as os.environ/NAME: keys of providers; also in {ENV_FILE} beside it")
_ENVIRONMENT: Final = (
    CONFIG_ROW,
    ("HEADRACE_MASTER_KEY", "the key that may use everything, if the file has none"),
    ("HEADRACE_PORT", "the port; PORT as well. Each of pipeline_settings has such a variable"),
    _NAMES,
    (VARIABLE, "a service manager's socket, such as systemd's, for reports that it is ready, reloads, and stops"),
    COLOUR_ROW,
)


def add_serve(commands: Commands) -> None:
    """Add both commands."""
    serve = add_command(
        commands,
        "serve",
        summary="serve a configuration, until Ctrl-C",
        description="""
            Serve a configuration: check it, listen, and keep workers running until SIGTERM or Ctrl-C, which let running
            streams end. SIGHUP reads the configuration again, SIGUSR1 replaces the workers; neither cuts a stream.

            Flags come before environment variables, and both before what the file says.
        """,
        example="""
            headrace serve
            headrace serve --config config.yaml --port 4100 --workers 2
        """,
        environment=_ENVIRONMENT,
    )
    dev = add_command(
        commands,
        "dev",
        summary="serve a configuration while you work on it, or on a stage",
        description="""
            Serve a configuration while you work on it, or on a stage: it is read again whenever it changes, and the log
            is text. Needs the extra: pip install 'headrace[watch]'.
        """,
        example="headrace dev --reload --watch ./my_stages",
        environment=_ENVIRONMENT,
    )
    for command in (serve, dev):
        _add_arguments(command)
    serve.set_defaults(reload=False, watch=[], environ={})
    dev.add_argument("--reload", action="store_true", help="new workers when the code of an installed stage changes")
    dev.add_argument(
        "--watch", metavar="FOLDER", action="append", default=[], help="another folder of code; may be repeated"
    )
    dev.set_defaults(environ={"HEADRACE_LOG_FORMAT": "text", "HEADRACE_WATCH_CONFIG": "true"})


def _add_arguments(serve: argparse.ArgumentParser) -> None:
    usual = PipelineSettings()
    serve.add_argument(
        "--config", "-c", metavar="FILE", help=f"a config.yaml, LiteLLM's or ours (${CONFIG_VARIABLE}, ./{USUAL_FILE})"
    )
    serve.add_argument("--host", help=f"address to listen on (pipeline_settings.host, {usual.host})")
    serve.add_argument("--port", type=int, help=f"port to listen on (pipeline_settings.port, {usual.port})")
    serve.add_argument("--workers", type=int, help=f"processes (pipeline_settings.workers, {usual.workers})")
    add_log_format(serve, f"pipeline_settings.log_format, {usual.log_format}")
    serve.add_argument("--inherited", type=Inherited.parse, help=argparse.SUPPRESS)  # from the supervisor to a worker
    serve.add_argument("--check", action="store_true", help=argparse.SUPPRESS)  # by the supervisor, before a reload
    serve.set_defaults(run=_serve)


def add_log_format(command: argparse.ArgumentParser, usual: str) -> None:
    """Add the flag ``--log-format``; ``usual`` says what holds without it."""
    command.add_argument(
        "--log-format",
        choices=get_args(LogFormat),
        help=f"how the log is written; auto: text on a terminal, JSON elsewhere ({usual})",
    )


def _serve(options: argparse.Namespace) -> int:
    config = find_config(options.config)
    flags = {
        f"--{name}": str(value) for name in FLAGS if (value := getattr(options, name.replace("-", "_"))) is not None
    }
    environ = {**options.environ, **os.environ, **flags}
    settings = load_settings(config, environ)
    if options.check:
        check_stages(settings)
        return 0
    if options.inherited is None:
        from pipeline.gateway.supervision import supervise

        for folder in options.watch:
            if not os.path.isdir(folder):
                raise CommandError(f"--watch {folder}: there is no such folder")
        code = [*code_folders(), *map(Path, options.watch)] if options.reload or options.watch else []
        files = partial(config_files, config)
        reload = partial(load_settings, config, environ)
        return supervise(settings, options.program, reread=reload, files=files, code=code)
    from pipeline.gateway.service import serve  # here because it takes half a second

    def reread() -> tuple[Settings, Plugins]:
        found = known_plugins()
        return with_warnings(load_settings(config, environ), found), found

    plugins = known_plugins()
    return serve(with_warnings(settings, plugins), plugins=plugins, inherited=options.inherited, reread=reread)
