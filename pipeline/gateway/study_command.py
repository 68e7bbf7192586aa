"""``headrace study``: its arguments."""

from __future__ import annotations

import argparse

from pipeline.gateway.config.settings import PipelineSettings
from pipeline.gateway.help_text import Commands, add_command, port_number
from pipeline.study.commands import COLOUR_ROW

MODEL_APIS = ("chat", "responses", "anthropic")
"""The APIs that `study` can ask an upstream by."""


def add_study(commands: Commands) -> None:
    """Add the command to the parser of ``headrace``. Nothing heavy is imported before it runs."""
    study = add_command(
        commands,
        "study",
        summary="see where the time of requests to an upstream goes",
        description="""
            Stand between a client and an upstream, and print where the time of each request goes. It needs no
            configuration and no key of its own: the client's key is passed on.
        """,
        example="""
            headrace study --upstream http://localhost:8000/v1
            headrace study --upstream https://api.openai.com --model-api responses --record today.jsonl
        """,
        environment=[
            ("HTTPS_PROXY", "the proxy to the upstream, as for the client itself; HTTP_PROXY, NO_PROXY as well"),
            COLOUR_ROW,
        ],
    )
    study.add_argument("--upstream", metavar="URL", required=True, help="its address, such as http://localhost:8000/v1")
    study.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    study.add_argument("--port", type=port_number, help=f"port to listen on ({PipelineSettings().port}, or a free one)")
    study.add_argument("--record", metavar="FILE", help="write a recording, for the other commands")
    study.add_argument("--json", action="store_true", help="print each request as a line of JSON")
    study.add_argument(
        "--model-api", choices=MODEL_APIS, default="chat", help="the API that the upstream is asked by (%(default)s)"
    )
    study.set_defaults(run=_study)


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
