"""Hold the loop when the model says so: ``hold 20`` holds it for 20 ms. For tests of who is blamed for that.

What it has held is appended to the file that ``HELD_FILE`` names, as a busy machine makes it longer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from pipeline import Stage, per_event
from stages.events import StreamEvent, TextDelta


def make_hold_loop(hold: Callable[[float], object]) -> Stage[StreamEvent, StreamEvent]:
    """Return the stage; ``hold`` passes that many seconds without letting any other task run."""

    @per_event
    def hold_loop(event: StreamEvent) -> Iterator[StreamEvent]:
        if isinstance(event, TextDelta) and event.text.startswith("hold "):
            hold(int(event.text.split()[1]) / 1000)
        yield event

    return hold_loop


def hold_and_note(seconds: float) -> None:
    """Hold the loop, and note for how many ms it was held: wanted, and really."""
    since = time.perf_counter()
    time.sleep(seconds)
    with open(os.environ["HELD_FILE"], "a") as file:
        file.write(f"{seconds * 1000:g} {(time.perf_counter() - since) * 1000}\n")


hold_loop = make_hold_loop(hold_and_note)
