"""The documentation is correct: docs/writing-a-stage.md is run unchanged, and the generated pages are up to date."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import trio
import yaml
from kit.service.plugins import EXAMPLE, install
from kit.service.running import as_logged
from msgspec import to_builtins
from msgspec.structs import fields

import pipeline
from pipeline import Party, testing
from pipeline.gateway.app import Application
from pipeline.gateway.config.load import parse_settings
from pipeline.gateway.insertions import PLACES
from pipeline.gateway.logs import StallRecord
from pipeline.gateway.reference import pages
from pipeline.gateway.trace_figures import TraceFigures
from pipeline.lane import STATES
from pipeline.registry import discover
from pipeline.timeline import POINTS
from pipeline.tracing import WAIT_READY, WORK
from stages.mending import MENDS
from stages.routing.router import HealthNote

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGE = (ROOT / "docs" / "writing-a-stage.md").read_text(encoding="utf-8")

BLOCK = re.compile(r"^```(?P<language>\w+)(?: (?P<name>\S+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(match["language"], match["name"], match["text"]) for match in BLOCK.finditer(PAGE)]
FILES = {name: text for language, name, text in BLOCKS if language in ("python", "toml")}
TEXTS = {name: text for _, name, text in BLOCKS if name}

LATENCY = (ROOT / "docs/latency.md").read_text(encoding="utf-8")

KEY = "sk-a-master-key-of-the-tests"
HELLO = {"model": "demo", "input": "Hello there", "stream": True}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with all files of the page, importable."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_every_python_block_is_a_file_so_that_it_runs() -> None:
    assert [text for language, name, text in BLOCKS if language == "python" and not name] == []
    modules = [name for name in FILES if name.endswith(".py") and not name.startswith("test_")]
    assert modules == [
        *("shout.py", "exclaim.py", "redact_naively.py", "redact.py", "slow_down.py", "try_again.py", "tally.py")
    ]
    assert all(f"test_{name}" in FILES for name in modules)
    assert PAGE.count("```") == 2 * len(BLOCKS)


def test_the_example_distribution_is_the_one_on_the_page() -> None:
    assert sorted(path.name for path in EXAMPLE.iterdir() if path.is_file()) == [
        "pyproject.toml",
        "shout.py",
        "test_shout.py",
    ]
    for path in EXAMPLE.iterdir():
        if path.is_file():
            assert path.read_text(encoding="utf-8") == FILES[path.name]


def test_the_tests_on_the_page_pass(written: Path) -> None:
    (written / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    path = os.pathsep.join([str(ROOT), str(written)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "pytest.ini", "."]
    ran = subprocess.run(
        command,
        cwd=written,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{PAGE.count('def test_')} passed" in ran.stdout


async def test_the_stage_on_the_page_changes_what_the_client_reads_and_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path)
    records: list[dict[str, Any]] = []
    application = serving(TEXTS["config.yaml"], discover(), records.append)
    for stream in (True, False):
        answer = await ask(application, {"model": "demo", "input": "Hello there", "stream": stream})
        assert "HELLO" in answer
        assert "Hello" not in answer
    logged = json.loads(TEXTS["log"])["stages"]["shout"]
    assert list(records[0]["stages"]["shout"]) == list(logged)
    assert records[0]["stages"]["shout"]["busy_ms"] > 0
    first_of_rows = re.findall(r"^\| `(\w+)`", PAGE.partition("| figure |")[2].partition("\n\n")[0], re.MULTILINE)
    assert first_of_rows == [name for name in logged if name.endswith("_ms")] + ["batches_in"]


async def test_options_reach_the_stage(written: Path) -> None:
    plugins = {name: importlib.import_module(name).plugin for name in ("exclaim", "redact", "slow_down")}
    config = yaml.safe_load(TEXTS["config.yaml"]) | yaml.safe_load(TEXTS["options"])
    config["pipeline_settings"]["stages"].append(
        {"use": "redact", "after": "decode_events", "options": {"secret": "sesame"}}
    )
    config["pipeline_settings"]["stages"].append(
        {"use": "slow_down", "after": "decode_events", "options": {"pause_s": 0}}
    )
    application = serving(yaml.safe_dump(config), plugins, lambda record: None)
    answer = await ask(application, {"model": "demo", "input": "Open sesame.", "stream": False})
    assert "Open [redacted]!!" in json.loads(answer)["choices"][0]["message"]["content"]


def test_the_places_in_the_table_are_those_where_a_stage_may_be_inserted() -> None:
    table = PAGE.partition("| `at` |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(PLACES)


def test_every_check_that_the_contract_names_exists_and_every_check_is_named() -> None:
    named = set(re.findall(r"`(assert_\w+)`", PAGE))
    checks = {name for name in vars(testing) if name.startswith("assert_")}
    assert named == checks - {"assert_time_conserved"}  # asserted by assert_waits_declared, about the engine


def test_the_public_names_of_the_engine_are_those_that_the_page_explains() -> None:
    prose = BLOCK.sub("", PAGE)
    code = [text for language, _, text in BLOCKS if language == "python"]
    explained = set(re.findall(r"\w+", " ".join([*code, *re.findall(r"`([^`]+)`", prose)])))
    public = {
        name for name, value in vars(pipeline).items() if name[0] != "_" and not isinstance(value, types.ModuleType)
    }
    assert "codec_stage" in public
    assert public - explained == set()


def test_every_word_for_what_was_mended_is_explained() -> None:
    table = LATENCY.partition("\n## What was mended\n")[2]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE)) == MENDS
    assert list(MENDS) == sorted(MENDS)


def test_every_word_for_what_health_did_is_explained() -> None:
    assert rows("What health did") == list(get_args(HealthNote))


def example(name: str) -> dict[str, Any]:
    """Return a block of docs/latency.md."""
    blocks = {match["name"]: match["text"] for match in BLOCK.finditer(LATENCY)}
    found: dict[str, Any] = json.loads(blocks[name])
    return found


def rows(heading: str) -> list[str]:
    """Return what is in backticks in the first column of the table under a heading of docs/latency.md."""
    section = LATENCY.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]


def test_the_page_on_latency_explains_every_figure_of_a_record() -> None:
    assert rows("Points") == [point for point in POINTS if point != "client_arrived"]  # that is where they count from
    assert rows("Parties") == [party.name.lower() for party in Party] == list(example("record")["party_ms"])
    assert rows("Lanes, stages and links") == [f"{state}_ms" for state in STATES]
    prose = BLOCK.sub("", LATENCY)
    explained_elsewhere = {"event", "request_id", "end"}
    assert [name for name in example("record").keys() - explained_elsewhere if f"`{name}`" not in prose] == []


async def test_the_records_on_the_page_on_latency_have_the_fields_of_real_ones() -> None:
    records: list[dict[str, Any]] = []
    await ask(serving(TEXTS["config.yaml"].partition("pipeline_settings")[0], {}, records.append), HELLO)
    [record] = records
    shown = example("record")
    assert shown.keys() - {"event"} <= record.keys()
    assert shown["party_ms"].keys() == record["party_ms"].keys()
    assert shown["points_ms"].keys() <= {*POINTS}
    assert shown["transit_ms"].keys() == record["transit_ms"].keys()
    for kind in ("lanes", "stages", "links"):
        assert shown[kind].keys() <= record[kind].keys()
        for name, figures in shown[kind].items():
            assert list(figures) == list(record[kind][name])
    assert {"event": "stall", **to_builtins(StallRecord("shout", "...", 101.3, 40, 0))} == example("stall")


def test_the_trace_on_the_page_on_latency_has_the_fields_of_a_real_one() -> None:
    shown = example("trace")
    assert list(shown) == [field.name for field in fields(TraceFigures)]
    assert len(shown["lane_of_stage"]) == len(shown["stages"])
    for kind, index, *_ in shown["spans"]:
        assert index < len(
            shown["stages"] if kind == WORK else shown["links"] if kind >= WAIT_READY else shown["lanes"]
        )


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_links_lead_to_files_and_headings() -> None:
    folders = (ROOT / name for name in ("docs", "benchmarks", "tests"))
    pages = [*ROOT.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))]
    links = [
        (page, *link)
        for page in pages
        for link in re.findall(r"\]\(([^)#:]*)(?:#([\w-]+))?\)", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 50
    for page, file, heading in links:
        target = page.parent / file if file else page
        assert target.exists(), f"{page}: {file}"
        assert not heading or heading in anchors(target), f"{page}: {file}#{heading}"


def serving(config: str, plugins: Any, on_end: Callable[[Any], None]) -> Application:
    environ = {"HEADRACE_MASTER_KEY": KEY}
    return Application(
        parse_settings(config, source="the page", environ=environ),
        plugins=plugins,
        on_end=lambda finished: on_end(as_logged(finished())),
    )


async def ask(application: Application, body: dict[str, Any]) -> str:
    """Post ``body`` to the chat route over ASGI and return the response's body."""
    messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    sent = bytearray()
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await trio.sleep_forever()
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        else:
            sent.extend(message["body"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(b"authorization", f"Bearer {KEY}".encode()), (b"content-type", b"application/json")],
        "extensions": {},
    }
    await application(scope, receive, send)
    assert statuses == [200], sent.decode()
    return sent.decode()


@pytest.mark.parametrize("name", sorted(pages(DOCS)))
def test_a_generated_page_matches_the_code(name: str) -> None:
    written = (DOCS / name).read_text()
    assert written == pages(DOCS)[name], f"docs/{name} is stale: run `make docs`"


def test_every_decision_has_a_number_a_date_and_a_status() -> None:
    texts = {path.name[:4]: path.read_text() for path in sorted((DOCS / "decisions").glob("*.md"))}
    assert len(texts) == len(list((DOCS / "decisions").glob("*.md"))), "two decisions have one number"
    replaced: set[str] = set()
    for number, text in texts.items():
        heading, _, rest = text.partition("\n\n")
        status = rest.partition("\n\n")[0]
        assert heading.startswith(f"# {number}: ")
        assert "Status: " in status
        assert "Date: 20" in status
        replaced.update(re.findall(r"\b\d{4}\b", status.partition("Replaces ")[2]))
    missing = {f"{number:04}" for number in range(1, int(max(texts)) + 1)} - set(texts)
    assert missing == replaced - set(texts), "a number is missing only if a later decision replaces it"
