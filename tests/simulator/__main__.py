"""Run the simulator from the root of the repository: ``python -m tests.simulator``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # as pytest does

from simulator.command import main

sys.exit(main(sys.argv[1:]))
