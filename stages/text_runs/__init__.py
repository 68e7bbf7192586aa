"""Change the text within a stream of events, for codecs that care about characters and not about events.

A `TextRuns` is a codec. It joins the deltas of each kind of output to a *run* of text, gives the text of each run to a
`Transformer` of its author's, and makes events of the same kind of what comes back. The order of what the client sees
stays as it is, and citations and log probabilities stay right.

`Window` makes transformers that replace what regular expressions match, however the text is cut. `JsonStrings` applies
a transformer to the strings within JSON, so that a call's arguments stay valid.

For less there are `text_of`, `with_text` and `pieces`, which look at single events.

A run of text, reasoning or refusal ends where other visible output begins: another of these kinds, or a tool call. What
the transformer holds is given before that, and text that comes later is a new run with a transformer of its own.
Arguments of different calls may be interleaved, because the client tells them apart by their index: a call has one run,
which ends with the answer. Started, Usage, Heartbeat and ReasoningItem are never shown where they occur, so they end
nothing, and pass at once.

Citations count characters of the answer's text, so they are moved. One that begins or ends inside a change covers all
of it; if the transformer does not report its changes, it is dropped. Log probabilities of text that has changed are
dropped: its tokens are not those of the model any more. Those of other output are dropped if it has a transformer: they
would quote what that takes out. Text with log probabilities is given with them, so it waits until all of its delta is
decided.
"""

from __future__ import annotations

from stages.text_runs.deltas import pieces, text_of, with_text
from stages.text_runs.json_strings import JsonStrings
from stages.text_runs.runs import TextRuns
from stages.text_runs.transformer import Edit, RunKind, Transformer
from stages.text_runs.window import SlidingWindow, Window

__all__ = [
    "TextRuns",
    "RunKind",
    "Transformer",
    "Edit",
    "Window",
    "SlidingWindow",
    "JsonStrings",
    "text_of",
    "with_text",
    "pieces",
]
