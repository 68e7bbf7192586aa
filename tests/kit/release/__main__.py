"""What a release does, as commands that a developer runs as well: the Makefile calls them.

``dist`` builds it, ``test-dist`` installs and uses what was built, ``check`` compares versions and reads the changelog.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kit.release.changelog import problems_of, release_text
from kit.release.dist import digest, make_dist, uncommitted
from kit.release.interpreters import find_interpreters
from kit.release.trial import TrialFailed, check_packages, try_each
from kit.release.versions import disagreements, project, python_versions, versions

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())


def check(root: Path, version: str) -> tuple[str, list[str]]:
    """Return the text of a release, and what is wrong with its versions and its changelog."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    problems = [f"CHANGELOG.md: {problem}" for problem in problems_of(text)]
    problems += disagreements(versions(root), version)
    try:
        return release_text(text, version), problems
    except LookupError as error:
        return "", [*problems, str(error)]


def test_dist(root: Path, folder: Path, required: Sequence[str]) -> int:
    """Try what was built with each Python of this machine; return 1 if something fails or a required one is missing."""
    wheel, sdist = check_packages(root, folder)
    sys.stdout.write(f"{wheel.name}, {sdist.name}: metadata are valid, and the sdist builds the same wheel\n")
    found = find_interpreters()
    failed = [minor for minor in required if not any(version.startswith(f"{minor}.") for version in found)]
    sys.stdout.writelines(f"Python {minor}: not found on this machine\n" for minor in failed)
    for version, problem in try_each(found, wheel, sdist, root):
        sys.stdout.write(
            f"Python {version} ({found[version]}): {problem or 'wheel and sdist installed, and answered'}\n"
        )
        sys.stdout.flush()
        failed += [version] if problem else []
    return 1 if failed or not found else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kit.release", description="Builds and checks a release.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("dist", help="build wheel, sdist, SBOM and checksums").add_argument("folder", type=Path)
    tested = commands.add_parser("test-dist", help="install and use them with each Python that is found")
    tested.add_argument("folder", type=Path)
    tested.add_argument("--require-all", action="store_true", help="fail if a Python of the classifiers is missing")
    checked = commands.add_parser("check", help="check versions and changelog, and print the text of the release")
    checked.add_argument("version", nargs="?", default="", help="such as 1.2.3 or v1.2.3; default: pyproject.toml's")
    options = parser.parse_args(arguments)
    try:
        match options.command:
            case "dist":
                if lost := uncommitted(ROOT):
                    sys.stderr.write("warning: not a release, since this is not committed:\n" + "\n".join(lost) + "\n")
                for file in make_dist(ROOT, options.folder):
                    sys.stdout.write(f"{digest(file)}  {file}\n")
                return 0
            case "test-dist":
                return test_dist(ROOT, options.folder, python_versions(ROOT) if options.require_all else ())
            case _:
                text, problems = check(ROOT, options.version.removeprefix("v") or str(project(ROOT)["version"]))
                sys.stderr.writelines(f"{problem}\n" for problem in problems)
                sys.stdout.write(f"{text}\n" if text else "")
                return 1 if problems else 0
    except (TrialFailed, RuntimeError, ValueError, LookupError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
