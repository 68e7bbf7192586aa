"""How long tests wait, on a machine that is ten times slower than yours and steals whole seconds."""

from __future__ import annotations

from functools import partial

import trio

PATIENCE_S = 25
"""No step of a test takes nearly as long; one that hangs fails here, with its place. Shorter than any timer that a test
leaves at its default and that could end what it waits for, such as the 30 s after which idle connections are closed."""

AT_ONCE_S = 5
"""What happens at once happens within this time. It tells apart what is noticed from what a timer ends: where the
difference matters, the timer in question is set to a minute."""

PROCESSES_S = 100
"""As `PATIENCE_S`, where Python processes start or end first: each may take ten seconds. Such a test needs more than
pytest's minute, too: ``pytest.mark.timeout(300)``."""

patiently = partial(trio.fail_after, PATIENCE_S)
patiently_with_processes = partial(trio.fail_after, PROCESSES_S)
