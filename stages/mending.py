"""What is mended in a request or an answer, so that a chat goes on: a closed vocabulary for the log.

Whoever mends something adds its word to `stages.request.ResponsesRequest.mended`.
"""

from __future__ import annotations

from typing import Final

MENDS: Final[dict[str, str]] = {
    "reasoning_dropped": "The upstream reported that it left out reasoning of earlier turns.",
    "unpaired_call": "A call without an output got an empty one, or an output without a call was left out.",
}
"""Each word, and its meaning for the documentation."""
