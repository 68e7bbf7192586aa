"""What is in deploy/ and docs/metrics.md: every metric and label in them exists, and every family is documented."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kit.needs import PROMETHEUS, needs

from pipeline.families import FAMILIES, Known
from pipeline.gateway.failures import END_CODES
from pipeline.series import Kind

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "headrace.rules.yml"
RULE_TESTS = ROOT / "deploy" / "prometheus" / "headrace.rules.test.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "headrace.json"
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")

HISTOGRAMS = (Kind.DURATIONS, Kind.SIZES, Kind.BUCKETS)
TYPES = {Kind.GAUGE: "gauge", **dict.fromkeys(HISTOGRAMS, "histogram")}
OF_PROMETHEUS = {"job", "instance"}
NAME = re.compile(r"\bheadrace[a-z0-9_:]*")
MATCHERS = re.compile(r"\{([^{}]*)\}")
GROUPED = re.compile(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)")


def metrics() -> dict[str, tuple[str, ...]]:
    """Return the names that Prometheus has, with their labels."""
    found: dict[str, tuple[str, ...]] = {}
    for family in FAMILIES:
        if family.kind in HISTOGRAMS:
            found[f"{family.name}_bucket"] = (*family.labels, "le")
            found[f"{family.name}_sum"] = found[f"{family.name}_count"] = family.labels
        else:
            found[family.name] = family.labels
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> Iterator[dict[str, Any]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield panel
        yield from panel.get("panels", ())


def dashboard_expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def check(expression: str, recorded: dict[str, set[str]]) -> set[str]:
    """Assert that all names and labels of an expression exist; return the labels of its metrics."""
    known = metrics()
    labels = set(OF_PROMETHEUS)
    for name in NAME.findall(expression):
        assert name in known or name in recorded, f"{name} in {expression}"
        labels |= set(known.get(name, ())) | recorded.get(name, set())
    for text in MATCHERS.findall(expression):
        for matcher in filter(None, re.split(r",\s*(?=\w+\s*[=!])", text)):
            label, value = re.fullmatch(r'(\w+)\s*(?:=~|!~|!=|=)\s*"(.*)"', matcher.strip()).groups()  # type: ignore[union-attr]
            assert label in labels, f"{label} in {expression}"
            if label == "end":
                assert set(value.split("|")) <= set(END_CODES), expression
    for text in GROUPED.findall(expression):
        assert set(filter(None, re.split(r",\s*", text))) <= labels, f"{text} in {expression}"
    return labels


def test_every_metric_and_label_of_the_rules_exists() -> None:
    recorded: dict[str, set[str]] = {}
    assert len(rules()) > 15
    for rule in rules():
        labels = check(rule["expr"], recorded)
        if "record" in rule:
            recorded[rule["record"]] = labels
        else:
            shown = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
            assert shown <= labels, rule["alert"]


def test_every_metric_and_label_of_the_dashboard_exists() -> None:
    expressions = dashboard_expressions()
    assert len(expressions) > 40
    for expression in expressions:
        check(expression, {})
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    assert [one["name"] for one in variables] == ["datasource", "job", "instance"]
    for one in variables[1:]:
        (name,) = NAME.findall(one["definition"])
        assert name in metrics()


def test_the_dashboard_shows_every_family() -> None:
    shown = {name for expression in dashboard_expressions() for name in NAME.findall(expression)}
    for family in FAMILIES:
        assert any(name == family.name or name.startswith(f"{family.name}_") for name in shown), family.name


def test_the_labels_that_the_dashboard_writes_exist_in_its_expressions() -> None:
    for panel in panels():
        for target in panel.get("targets", ()):
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = {label for text in GROUPED.findall(target["expr"]) for label in re.split(r",\s*", text)}
            assert named <= grouped, panel["title"]


def test_every_panel_has_a_place_of_its_own() -> None:
    places: set[tuple[int, int]] = set()
    ids: set[int] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places, panel["title"]
        assert at["x"] + at["w"] <= 24
        assert panel["id"] not in ids
        places |= cells
        ids.add(panel["id"])


@needs(PROMETHEUS)
def test_promtool_accepts_the_rules_and_every_alert_does_what_its_test_says() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))
    assert "SUCCESS" in promtool("test", "rules", str(RULE_TESTS))
    tested = {
        one["alertname"] for test in yaml.safe_load(RULE_TESTS.read_text())["tests"] for one in test["alert_rule_test"]
    }
    assert tested == {rule["alert"] for rule in rules() if "alert" in rule}


@needs(PROMETHEUS)
def test_promtool_accepts_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    own = tmp_path / "rules.yml"
    filled = [
        expression.replace("$__rate_interval", "5m").replace("$__range", "1h") for expression in dashboard_expressions()
    ]
    own.write_text(
        json.dumps(
            {
                "groups": [
                    {"name": "g", "rules": [{"record": f"a:{at}", "expr": expr} for at, expr in enumerate(filled)]}
                ]
            }
        )
    )
    assert "SUCCESS" in promtool("check", "rules", str(own))


def promtool(*arguments: str) -> str:
    ran = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_is_documented(family: Known) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{family.name}`")]
    assert len(rows) == 1, f"docs/metrics.md has {len(rows)} rows for {family.name}"
    _, type_, labels, meaning, advice = (column.strip() for column in rows[0].strip("|").split(" | "))
    assert type_ == TYPES.get(family.kind, "counter")
    assert labels == (", ".join(f"`{label}`" for label in family.labels) or "-")
    assert meaning == family.about
    assert len(advice) > 20


def test_no_other_family_is_documented() -> None:
    rows = re.findall(r"^\| `(headrace_\w+)`", PAGE, re.MULTILINE)
    assert set(rows) == {family.name for family in FAMILIES}


def test_every_alert_is_documented() -> None:
    for rule in rules():
        if "alert" in rule:
            assert f"`{rule['alert']}`" in PAGE
