"""What is mended in a request or an answer, so that a chat goes on: a closed vocabulary for the log.

Whoever mends something adds its word to `stages.request.ResponsesRequest.mended`.
"""

from __future__ import annotations

from typing import Final

MENDS: Final[dict[str, str]] = {
    "call_index": "Several calls of an answer had one index; they were told apart by their names and arguments.",
    "empty_answer": "The answer had no text, refusal or call; Cursor was sent a sentence that says why.",
    "empty_part": "An empty message, a part without content, or a call without a name was left out.",
    "event_name": "Events did not say what they are in their JSON; the names of the server-sent events were used.",
    "finish": "The upstream sent the word null as a finish reason; it did not count as one.",
    "image_detail": "The detail of an image became one that the upstream's API has: `original` became `high`.",
    "item_index": "An index was negative or absurdly large; ids and the order were used instead.",
    "lone_surrogate": "Half of a character that was cut in two became U+FFFD.",
    "missing_call_id": "A call or an output without an id got one by its position.",
    "object_arguments": "The arguments of a call came as an object instead of its text; they were written as text.",
    "odd_value": "A value of another type or spelling was read as what it stands for: a role, arguments, an output.",
    "own_error_text": "What headrace had said in place of the assistant, an error or why there is no answer, was "
    "removed.",
    "reasoning_dropped": "The upstream reported that it left out reasoning of earlier turns.",
    "repeated_arguments": "The arguments of a call came again as a whole, or after a `{}`; they were sent once.",
    "split_emoji": "A character came in two halves; they were joined, or a lone half became U+FFFD.",
    "thinking_dropped": "The upstream refused the reasoning of earlier turns, and was asked again without it.",
    "tool_name": "A tool has a shorter or plainer name at the upstream; the client sees its own.",
    "truncated_arguments": 'Arguments of an earlier call that are not a JSON object were sent as `{"input": ...}`.',
    "unforwarded_field": "A field that the deployment does not forward was not sent: see `forward_fields`.",
    "unknown_item": "An item of a type that the upstream's API does not have was left out.",
    "unpaired_call": "A call and its output were paired: a missing output became an empty one, an early one was "
    "moved, one without a call was left out.",
}
"""Each word, and its meaning for the documentation."""
