"""How long tests wait, on a machine that is ten times slower than yours and pauses for whole seconds."""

from __future__ import annotations

from functools import partial

import trio

PATIENCE_S = 25
"""No step of a test takes nearly as long; a test that hangs fails here and shows where. It is shorter than any timer
that a test leaves at its default and that could end the wait, such as the 30 s after which idle connections close."""

AT_ONCE_S = 5
"""What happens immediately happens within this time. It distinguishes events that are noticed from those that a timer
ends: where the difference matters, the test sets the timer to a minute."""

PROCESSES_S = 100
"""Like `PATIENCE_S`, for tests that wait for Python processes to start or end: each may take ten seconds. Such a test
also needs more than pytest's minute: ``pytest.mark.timeout(300)``."""

patiently = partial(trio.fail_after, PATIENCE_S)
patiently_with_processes = partial(trio.fail_after, PROCESSES_S)
