"""``python -m pipeline.gateway`` is the ``headrace`` command."""

import os
import signal


def main() -> int:
    """Run the command; Ctrl-C ends it without a traceback also while its modules are loaded."""
    if os.getpid() == 1:  # in a container, where SIGTERM does nothing until a program has said what (pid_namespaces(7))
        signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(128 + signal.SIGTERM))
    try:
        from pipeline.gateway.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130  # as `cli.INTERRUPTED`


if __name__ == "__main__":
    raise SystemExit(main())
