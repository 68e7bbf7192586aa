"""``python -m pipeline.gateway`` is the ``headrace`` command."""


def main() -> int:
    """Run the command; Ctrl-C ends it without a traceback also while its modules are loaded."""
    try:
        from pipeline.gateway.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130  # as `cli.INTERRUPTED`


if __name__ == "__main__":
    raise SystemExit(main())
