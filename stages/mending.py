"""What is mended in a request or an answer, so that a chat goes on: a closed vocabulary for the log.

Whoever mends something adds its word to `stages.request.ResponsesRequest.mended`.
"""

from __future__ import annotations

from typing import Final

MENDS: Final[dict[str, str]] = {
    "call_index": "Several calls of an answer had one index; they were told apart by their names and arguments.",
    "empty_answer": "The answer had no text, refusal or call; Cursor was sent a sentence that says why.",
    "event_name": "Events did not say what they are in their JSON; the names of the server-sent events were used.",
    "finish": "The upstream sent the word null as a finish reason; it did not count as one.",
    "item_index": "An index was negative or absurdly large; ids and the order were used instead.",
    "object_arguments": "The arguments of a call came as an object instead of its text; they were written as text.",
    "split_emoji": "A character came in two halves; they were joined, or a lone half became U+FFFD.",
    "unpaired_call": "A call without an output got an empty one, or an output without a call was left out.",
}
"""Each word, and its meaning for the documentation."""
