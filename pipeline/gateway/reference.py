"""The pages of the documentation that are generated from code: docs/stages.md and docs/errors.md."""

from __future__ import annotations

import importlib
import re

import stages
from pipeline.gateway.failures import END_CODES, TABLE
from stages.wire.downstream.errors import error_type

_ENTRY = re.compile(r"^- ``(\w+)``\s+(.+)$", re.MULTILINE)


def built_in_stages() -> list[tuple[str, str]]:
    """Return the name and the summary of each built-in stage, in the order of the package's table."""
    return _ENTRY.findall(stages.__doc__ or "")


def pages() -> dict[str, str]:
    """Return the generated pages by file name."""
    return {"stages.md": _stages_page(), "errors.md": _errors_page()}


def _stages_page() -> str:
    parts = [
        "# The built-in stages\n",
        "Generated from the stages' docstrings by `make docs`. They are in the order in which a request passes",
        "them. A streaming request ends with `encode_chunks`, `keep_alive` and `write_sse`, any other with",
        "`collect_completion` and `write_json`.\n",
    ]
    for name, _ in built_in_stages():
        doc = (importlib.import_module(f"stages.{name}").__doc__ or "").strip()
        summary, _, contract = doc.partition("\n")
        parts.append(f"## {name}\n\n{summary}\n\n```text\n{contract.strip()}\n```\n")
    return "\n".join(parts)


def _errors_page() -> str:
    parts = [
        "# Errors\n",
        "Generated from `pipeline/gateway/failures.py` by `make docs`.\n",
        'Every error has OpenAI\'s shape: `{"error": {"message", "type", "param", "code"}}`. A failure before',
        "the first byte is an HTTP status; after it, the last event of the stream: an `error` object without",
        "`[DONE]`, or for Cursor a line of text, `stop` and `[DONE]`. Cursor shows the text of 400 responses only, so",
        "Cursor gets every failure except 401, 403 and 404 as a 400 (`pipeline_settings.cursor_error_status`).\n",
        "`code` is one of the codes below. A code of the upstream's own, as `insufficient_quota`, is beside it as",
        "`upstream_code`, here and in the log.\n",
        "`context_length_exceeded` has the form of OpenAI's own error, whichever vendor reports it, however, and with",
        "which status: `param` is `messages`, and `message` begins with OpenAI's sentence; the vendor's text follows.",
        "Cursor repeats a call with a summary of the chat only if it recognises this error. If a heartbeat has already",
        "been sent, the text for Cursor begins with the same sentence. An answer that stops because the context window",
        "is full is this error only if it has neither text nor calls; if not, it is valid, with the finish `length`.\n",
        "| code | status | type | end code | meaning |",
        "|---|---|---|---|---|",
        *(
            f"| `{code}` | {row.status} | `{error_type(code)}` | {row.end} | {row.meaning} |"
            for code, row in TABLE.items()
        ),
        "",
        "## End codes\n",
        "One for each finished request, in the log (`end`).\n",
        "| end code | meaning |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in END_CODES.items()),
        "",
    ]
    return "\n".join(parts)
