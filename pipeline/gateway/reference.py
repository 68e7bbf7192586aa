"""What is generated from code in the documentation: docs/stages.md, docs/errors.md, and a part of docs/config.md."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import stages
from pipeline.gateway.config import litellm_names
from pipeline.gateway.config.litellm_ignored import NOT_COUNTED, Ignored
from pipeline.gateway.failures import END_CODES, TABLE
from stages.wire.downstream.errors import error_type

_ENTRY = re.compile(r"^- ``(\w+)``\s+(.+)$", re.MULTILINE)


def built_in_stages() -> list[tuple[str, str]]:
    """Return the name and the summary of each built-in stage, in the order of the package's table."""
    return _ENTRY.findall(stages.__doc__ or "")


def pages(folder: Path) -> dict[str, str]:
    """Return the generated pages by file name; of those that are generated in part, the rest is what ``folder`` has.

    Raises:
        ValueError: if such a page does not have the two comments between which the part stands.
    """
    config = (folder / "config.md").read_text(encoding="utf-8")
    return {
        "stages.md": _stages_page(),
        "errors.md": _errors_page(),
        "config.md": _with_part(config, "settings that are not read", "\n".join(_ignored_settings())),
    }


def _with_part(page: str, name: str, part: str) -> str:
    """Return a page in which the text between two comments is replaced."""
    start, end = f"<!-- generated: {name} -->\n", "<!-- end of generated -->\n"
    before, found, rest = page.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise ValueError(f"the page has no part between {start.strip()} and {end.strip()}")
    return f"{before}{start}\n{part}\n{end}{after}"


_SECTIONS = {
    "`general_settings`": litellm_names.GENERAL_SETTINGS,
    "`litellm_settings`": litellm_names.LITELLM_SETTINGS,
    "`router_settings`": litellm_names.ROUTER_SETTINGS,
    "`model_list[].litellm_params`": litellm_names.LITELLM_PARAMS,
    "`model_list[].model_info`": litellm_names.MODEL_INFO,
    "`model_list[]`": litellm_names.MODEL_LIST_ENTRY,
    "The top level": litellm_names.TOP_LEVEL,
}


def _ignored_settings() -> Iterator[str]:
    """Return the lines of the tables of LiteLLM's settings that have no effect here."""
    for place, names in _SECTIONS.items():
        yield f"### {place}\n\n| What becomes of it | Settings |\n|---|---|"
        yield from _rows(names.ignored)
        if names is litellm_names.LITELLM_PARAMS:
            yield f"| no effect: {NOT_COUNTED} | all prices, such as `input_cost_per_token` |"
        yield ""


def _rows(ignored: Ignored) -> Iterator[str]:
    kinds: tuple[tuple[str, Mapping[str, str]], ...] = (
        ("**not enforced**, a warning: ", ignored.protections),
        ("ignored, a warning; see ", ignored.unsupported),
        ("no effect: ", ignored.harmless),
    )
    for words, names in kinds:
        for text in dict.fromkeys(names.values()):
            shown = f"`{text}`" if text.startswith(("pipeline_", "router_", "model_info", "litellm_")) else text
            listed = ", ".join(f"`{name}`" for name, found in sorted(names.items()) if found == text)
            yield f"| {words + shown if text else words.partition(';')[0]} | {listed} |"


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
