"""``headrace demo``: the embedded models, which need no configuration, no key and no network."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from pipeline.gateway.banner import cursor_lines, local_url
from pipeline.gateway.config.load import parse_settings
from pipeline.gateway.config.settings import PipelineSettings
from pipeline.gateway.help_text import Commands, add_command, port_number, program_name
from pipeline.gateway.new_key import new_key
from pipeline.gateway.serve_command import add_log_format
from pipeline.registry import discover
from pipeline.study.commands import COLOUR_ROW

CONFIG: Final = """\
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

WELCOME: Final = """\
headrace serves its embedded models on {url} (no upstream and no network needed).

  key     {key}

Try it, with streaming and without:

  curl -N {url}/cursor/chat/completions \\
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
    -d '{{"model": "headrace-story", "input": "Tell me a story", "stream": true}}'

  curl {url}/cursor/chat/completions \\
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
    -d '{{"model": "headrace-echo", "input": "Hello there"}}'

{cursor}

Where the time goes, live:

  {url}/latency#key={key}

Your own models: {program} init
"""


def add_demo(commands: Commands) -> None:
    """Add the command to the parser of ``headrace``."""
    demo = add_command(
        commands,
        "demo",
        summary="serve the embedded models: no key, no network",
        description="""
            Serve the embedded models: one that repeats your words, one that writes a story at the pace of a model, and
            one that calls tools as an agent does. It makes a key and prints it, with commands to try.
        """,
        example="headrace demo --port 4100",
        environment=[COLOUR_ROW],
    )
    demo.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    demo.add_argument(
        "--port", type=port_number, default=PipelineSettings().port, help="port to listen on (%(default)s)"
    )
    add_log_format(demo, "text")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    from pipeline.gateway.service import serve  # here because it takes half a second

    key = new_key()
    environ = {
        "HEADRACE_DEMO_KEY": key,
        "--host": options.host,
        "--port": str(options.port),
        "--log-format": options.log_format or "text",
    }
    settings = parse_settings(CONFIG, source="the demo", environ=environ)
    names = [deployment.model_name for deployment in settings.deployments]

    def welcome(host: str, port: int) -> None:
        cursor = "\n".join(cursor_lines(names, "the key above", doctor=f" --key {key}"))
        url = local_url(host, port)
        sys.stdout.write(WELCOME.format(url=url, key=key, cursor=cursor, program=program_name()))
        sys.stdout.flush()

    return serve(settings, plugins=discover(), on_listening=welcome)
