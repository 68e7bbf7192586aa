"""A process that counts: ``counting_program.py FD NAME RPM PARALLEL``, for tests of counts that processes share.

It obeys the letters that it reads: ``t`` takes a place, ``e`` ends the one taken last, ``l`` takes the lock and keeps
it, ``c`` closes another descriptor of the file, and answers each with a line.
"""

from __future__ import annotations

import os
import sys

from stages.admission.counts import Counts
from stages.admission.quota import Quota, Taken
from stages.limits import Limits


def main(fd: int, name: str, rpm: int, parallel: int) -> None:
    counts = Counts(fd)
    quota = Quota(counts, name, name, Limits(rpm=rpm, parallel=parallel))
    held: list[Taken] = []
    os.write(1, b"ready\n")
    while order := os.read(0, 1):
        answer = b"done"
        match order:
            case b"t":
                if isinstance(taken := quota.take(), Taken):
                    held.append(taken)
                else:
                    answer = b"full"
            case b"e":
                held.pop().end(None)
            case b"l":
                counts.lock()
            case b"c":
                os.close(os.dup(fd))
                os.close(fd)
        os.write(1, answer + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
