"""Remove secrets from what the model says: text, reasoning, refusals and the arguments of calls."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import Plugin, Stage, codec_stage
from stages.events import StreamEvent
from stages.text_runs import JsonStrings, RunKind, TextRuns, Transformer, Window


@dataclass(frozen=True)
class Options:
    """``patterns`` are regular expressions; no match is longer than ``max_match`` characters."""

    patterns: list[str]
    mask: str = "[redacted]"
    max_match: int = 512


def make_scrub(options: Options) -> Stage[StreamEvent, StreamEvent]:
    """Remove secrets from what the model says.

    Takes and gives StreamEvent, n:m. Holds: what `TextRuns` holds, fewer than ``max_match`` characters of each run.
    """
    if not options.patterns:
        raise ValueError("patterns must not be empty")
    if '"' in options.mask or "\\" in options.mask:
        raise ValueError("mask must not contain quotes or backslashes: it may be read within JSON or code")
    window = Window(options.patterns, options.mask, max_match=options.max_match)

    def open_run(kind: RunKind) -> Transformer:
        return JsonStrings(window.open) if kind == "arguments" else window.open()

    return codec_stage("scrub", lambda ctx: TextRuns(open_run), codec=TextRuns)


plugin = Plugin("scrub", make_scrub, Options, accepts=StreamEvent, emits=StreamEvent)
