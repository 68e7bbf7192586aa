"""``python -m pipeline.gateway`` is the ``headrace`` command."""

from pipeline.gateway.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
