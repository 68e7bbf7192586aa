"""House rules that no other tool checks: one name for one class, plain English, and a repository that stands alone."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
THIS_FILE = "tests/test_house.py"
"""It writes the phrases down, so it is not searched itself."""

FOLDERS = ("benchmarks", "clients", "docs", "pipeline", "stages", "tests")
NOT_OURS = frozenset({"node_modules", "__pycache__"})


class Finding(NamedTuple):
    """A line with a phrase that we do not write."""

    file: str
    line: str
    phrase: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.phrase!r} in: {self.line}"


def any_of(*phrases: str, unless_before: str = "", unless_after: str = "") -> re.Pattern[str]:
    """Return a pattern for whole words, across line breaks and comment signs, and in identifiers (``is_no_name``).

    Args:
        phrases: words in lower case; the first may also be capitalised.
        unless_before: a word that makes them idiomatic if it is directly before them, as a pattern.
        unless_after: the same directly after them.
    """
    gap = r"[\s#_]+"
    starts = [f"[{words[0].upper()}{words[0]}]{words[1:]}" for words in phrases]
    alternatives = "|".join(gap.join(words.split()) for words in starts)
    before = f"(?P<idiomatic>{unless_before}{gap})?" if unless_before else ""
    after = f"(?!{gap}{unless_after}(?![A-Za-z]))" if unless_after else ""
    return re.compile(f"(?<![A-Za-z]){before}(?:{alternatives})(?![A-Za-z]){after}")


PROSE = (
    any_of("is no", "are no", unless_before="[Tt]here", unless_after="(?:longer|more|less|fewer|better|worse|finer)"),
    any_of("is none", unless_before="[Tt]here"),
    any_of("dear", "the begin", "for ever", "at the most", "at hand", "what lacks", "lacks of", "also when", "also if"),
    any_of("hurry", "hurries", "farewell", "far side", "last words", "patient half", "whoever it is", "disappoint"),
    re.compile(r"\bWho\s(?!(?:(?!\n\n)[^.!?])*\?)"),  # the start of a sentence that is not a question
    re.compile(r'"""Gives?\b'),
)
"""Phrases that are not idiomatic English, or name nobody. What to write instead is in CONTRIBUTING.md."""

FOLDER = re.compile(r"\.\./shared\b")
"""A folder beside the repository, which its readers do not have."""

PAPERS = (
    re.compile(r"\b(?:mapping|stack|shared|cursor-wire|LiteLLM) facts\b|\bfacts, (?:section|rule)"),
    re.compile(r"(?<!docs/)\bfacts/(?:mapping|stack|cursor-wire|faults|latency|litellm|ecosystem)\b"),
    re.compile(r"(?<![\w/-])(?:mapping|stack|cursor-wire|faults|litellm|ecosystem|design|style)\.md\b"),
    re.compile(r"(?<!#)\b(?:[Rr]ules?|[Pp]ayloads?|[Ii]ssues?) \d+\b"),
)
"""Papers that are not in the repository, and their numbered rules, payloads and issues."""

MAY_NAME_THE_FOLDER = frozenset(
    {"tests/kit/needs.py", "tests/kit/recordings.py", "tests/test_kit/test_needs.py", "CONTRIBUTING.md"}
)
"""Where it is explained what the folder holds and that nothing else needs it."""

ALLOWED: Mapping[tuple[str, str], str] = {
    (
        "stages/upstreams/canned/answers.py",
        'return (CannedMessage("I would call tools now, but tool_choice is none, so I only say so."),)',
    ): "`none` is the value of tool_choice",
}
"""Exact lines that may stay, by file and text, each with the reason."""


def files() -> Iterator[str]:
    """Yield the Python and Markdown files of the repository, as in a clone and as in an unpacked sdist."""
    paths = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
    for path in sorted(paths):
        if path.suffix in (".py", ".md") and NOT_OURS.isdisjoint(path.parts):
            yield path.relative_to(ROOT).as_posix()


def find(file: str, text: str, patterns: Iterable[re.Pattern[str]]) -> Iterator[Finding]:
    """Yield each place in a file where a pattern matches, with the line on which the match starts."""
    lines = text.split("\n")
    for pattern in patterns:
        for match in pattern.finditer(text):
            if match.groupdict().get("idiomatic") is None:
                number = text.count("\n", 0, match.start()) + 1
                yield Finding(file, lines[number - 1].strip(), " ".join(match[0].split()), number)


def class_names(source: str) -> Iterator[str]:
    """Yield the name of each class of a module, private and nested ones included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            yield node.name


def read(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@cache
def prose_findings() -> list[Finding]:
    searched = [file for file in files() if file != THIS_FILE]
    return [finding for file in searched for finding in find(file, read(file), PROSE)]


@cache
def paper_findings() -> list[Finding]:
    found: list[Finding] = []
    for file in files():
        if file == THIS_FILE:
            continue
        text = read(file)
        if file.endswith(".py"):
            found += find(file, text, PAPERS)
        if file not in MAY_NAME_THE_FOLDER:
            found += find(file, text, [FOLDER])
    return found


def fail_unless_allowed(findings: list[Finding]) -> None:
    unwanted = [str(finding) for finding in findings if (finding.file, finding.line) not in ALLOWED]
    if unwanted:
        pytest.fail("\n".join(unwanted), pytrace=False)


def test_no_class_name_occurs_twice() -> None:
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for file in files():
        if file.startswith(("pipeline/", "stages/")) and file.endswith(".py"):
            for name in class_names(read(file)):
                homes[name].append(file)
    assert len(homes) > 100
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_prose_is_plain_english() -> None:
    fail_unless_allowed(prose_findings())


def test_nothing_refers_to_papers_outside_the_repository() -> None:
    fail_unless_allowed(paper_findings())


def test_every_allowed_line_still_needs_its_entry() -> None:
    found = {(finding.file, finding.line) for finding in (*prose_findings(), *paper_findings())}
    assert set(ALLOWED) - found == set()
    assert all(reason.strip() for reason in ALLOWED.values())


def test_private_and_nested_classes_are_seen() -> None:
    source = "class A:\n    class _B:\n        pass\n\ndef f():\n    class C:\n        pass\n"
    assert sorted(class_names(source)) == ["A", "C", "_B"]


def test_the_finder_sees_a_planted_phrase_wherever_it_is() -> None:
    def found(text: str) -> list[tuple[str, int, str]]:
        return [(finding.phrase, finding.number, finding.line) for finding in find("x.py", text, PROSE)]

    assert found("a = 1\n# This is no list.\n") == [("is no", 2, "# This is no list.")]
    assert found("# This is\n    # no list.") == [("is # no", 1, "# This is")]
    assert found("def test_that_is_no_list(): ...") == [("is_no", 1, "def test_that_is_no_list(): ...")]
    assert found('def f():\n    """Give the rest."""') == [('"""Give', 2, '"""Give the rest."""')]
    assert found("Who holds it ends it. Why?") == [("Who", 1, "Who holds it ends it. Why?")]
    assert [phrase for phrase, _, _ in found("Dear, for ever, At the most")] == ["Dear", "for ever", "At the most"]


def test_the_finder_leaves_idiomatic_english_and_code_alone() -> None:
    for text in (
        "There is no list, and there\n# is no other.",
        "It is no longer a list. They are no better than 10 ms.",
        "assert test_there_is_no_list",
        "if value is None or value is not None: ...",
        'assert answer() == "is nothing", "the beginning"',
        "None if there is none.",
        "Who reads this? Those who can.",
        "beforehand, endearing, forever, at most",
        '"""Given a list, return it."""',
    ):
        assert list(find("x.py", text, PROSE)) == []


def test_the_finder_sees_references_to_papers() -> None:
    for text in (
        "see ../shared/tools",
        "(mapping facts, section 0)",
        "(facts/stack.md section 8)",
        "cursor-wire.md 1.4",
        "as rule 14 says",
        "Play payload 08.",
        "Of issue 4.",
    ):
        assert list(find("x.py", text, (*PAPERS, FOLDER))) != [], text
    for text in (
        'docs/facts/litellm.md, "Speed"',
        "[x](facts/http-stack.md)",
        "litellm#123",
        "five rules",
        "a payload of 12 bytes",
    ):
        assert list(find("x.py", text, (*PAPERS, FOLDER))) == [], text
