"""``python -m tests.fuzz``, from the root of the repository: see `runner`."""

from __future__ import annotations

import sys
from pathlib import Path

# The folders that pytest and the type checkers put on the path.
sys.path[:0] = [str(Path(__file__).parent.parent)]

if __name__ == "__main__":
    from fuzz.runner import main

    main()
