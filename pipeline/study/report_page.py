"""What ``headrace report`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.study.report import Report, Spread
from pipeline.study.tables import Paint, ms_text, number, percent, printable, table


def report_page(report: Report, paint: Paint) -> list[str]:
    """Return the lines: the totals, whose time it was, then stages, lanes, links, phases and deployments."""
    whole = report.total.sum_ms
    ends = ", ".join(f"{count} {end}" for end, count in report.ends.items())
    lines = [paint(f"{report.requests} requests ({report.streams} streams): {ends}", "bold")]
    if report.began:
        lines.append(printable(f"from {report.began} to {report.ended}"))
    lines.append(f"total: {_spread(report.total)}")
    if report.first_token is not None:
        lines.append(f"first token: {_spread(report.first_token)}")
    if report.transit:
        transit = ", ".join(f"{name} {ms_text(spread.p50_ms)}" for name, spread in report.transit.items())
        lines.append(printable(f"transit of a batch, the median request's: {transit}"))
    if report.stalls:
        lines.append(f"the loop was held {report.stalls} times, for {ms_text(report.stall_ms)}: see headrace stalls")
    lines += _section("whose time", ["party", "p50 ms", "p99 ms", "sum ms", "share"], _parties(report), paint)
    conserved = "conserved: they sum to the total" if report.is_conserved else "NOT conserved in some request"
    residual = f"{'residual':<10}{number(report.residual_ms)} ms of {number(whole)} ms; {conserved}"
    lines.append(paint(residual, "dim" if report.is_conserved else "bad"))
    lines += _stages(report, paint)
    lines += _shares("lanes: share of each state", {name: dict(states) for name, states in report.lanes.items()}, paint)
    rows = [
        [name, *[number(spreads[what].p99_ms) for what in ("ready", "queued", "full")],
         *[number(spreads[what].sum_ms) for what in ("ready", "queued", "full")]]
        for name, spreads in report.links.items()
    ]  # fmt: skip
    head = ["link", "ready p99", "queued p99", "full p99", "ready sum", "queued sum", "full sum"]
    lines += _section("links: how long batches waited, in ms", head, rows, paint)
    rows = [
        [name, *[number(ms) for ms in (one.p50_ms, one.p99_ms, one.sum_ms)], percent(one.sum_ms, whole)]
        for name, one in report.phases.items()
    ]
    lines += _section("phases, each up to a point", ["up to", "p50 ms", "p99 ms", "sum ms", "share"], rows, paint)
    rows = [
        [
            name,
            str(one.requests),
            ", ".join(f"{count} {end}" for end, count in one.ends.items()),
            number(one.total_p50_ms),
            number(one.total_p99_ms),
            "-" if one.first_token_p50_ms is None else number(one.first_token_p50_ms),
            "-" if one.first_token_p99_ms is None else number(one.first_token_p99_ms),
            f"{one.upstream_share:.1%}",
        ]
        for name, one in report.deployments.items()
    ]
    head = ["deployment", "requests", "ends", "total p50", "total p99", "first p50", "first p99", "upstream"]
    return lines + _section("deployments, in ms", head, rows, paint)


def _spread(spread: Spread) -> str:
    return f"p50 {ms_text(spread.p50_ms)}, p99 {ms_text(spread.p99_ms)}, max {ms_text(spread.max_ms)}"


def _parties(report: Report) -> list[list[str]]:
    return [
        [party, number(one.p50_ms), number(one.p99_ms), number(one.sum_ms), f"{one.share:.1%}"]
        for party, one in report.parties.items()
    ]


def _stages(report: Report, paint: Paint) -> list[str]:
    rows = [
        [
            name,
            number(one.busy_p50_ms),
            number(one.busy_p99_ms),
            number(one.outside_p50_ms),
            number(one.outside_p99_ms),
            one.outside_of if one.outside_p99_ms else "",
            "-" if one.first_token_share is None else f"{one.first_token_share:.1%}",
            f"{one.total_share:.1%}",
            str(one.events_out),
        ]
        for name, one in report.stages.items()
    ]
    head = ["stage", "busy p50", "busy p99", "outside p50", "outside p99", "of", "first", "total", "events"]
    lines = _section("stages, in ms per request; shares of the first token's time and of the total", head, rows, paint)
    if rows and all(one.first_token_share is None for one in report.stages.values()):
        lines.append(paint("first: known only for requests that were traced per batch", "dim"))
    return lines


def _shares(title: str, lanes: Mapping[str, Mapping[str, Spread]], paint: Paint) -> list[str]:
    states = [*next(iter(lanes.values()))] if lanes else []
    rows: list[list[str]] = []
    for name, spreads in lanes.items():
        life_ms = sum(spread.sum_ms for spread in spreads.values())
        rows.append([name, *[percent(spread.sum_ms, life_ms) for spread in spreads.values()], number(life_ms)])
    return _section(title, ["lane", *states, "sum ms"], rows, paint)


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], paint: Paint) -> list[str]:
    if not rows:
        return []
    lines = table(head, rows)
    return ["", paint(title, "bold"), paint(lines[0], "dim"), *lines[1:]]
