"""What is mended in a request or an answer, so that a chat goes on: a closed vocabulary for the log.

Whoever mends something adds its word to `stages.request.ResponsesRequest.mended`.
"""

from __future__ import annotations

from typing import Final

MENDS: Final[dict[str, str]] = {
    "thinking_dropped": "The upstream refused the reasoning of earlier turns, and was asked again without it.",
    "unpaired_call": "A call without an output got an empty one, or an output without a call was left out.",
}
"""Each word, and its meaning for the documentation."""
