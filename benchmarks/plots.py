"""Small SVG plots without a library: bars and lines, readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.recording import number

_WIDTH = 720
_LABELS = 190
_ROW = 26
_OURS = "#1f77b4"
_OTHERS = "#9aa5b1"
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#7f7f7f")
_STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#333}.t{font-weight:600;font-size:14px}"
    ".a{stroke:#bbb;stroke-width:1}.p{fill:none;stroke-width:2}@media(prefers-color-scheme:dark){text{fill:#ddd}.a{stroke:#555}}</style>"
)


def bars(title: str, unit: str, values: Sequence[tuple[str, float]], ours: str = "headrace") -> str:
    """Draw one bar for each labelled value, from zero; bars whose label starts with ``ours`` are highlighted."""
    top = max((value for _, value in values), default=0) or 1
    room = _WIDTH - _LABELS - 110
    rows = [_text(0, 18, f"{title} ({unit})", "t")]
    for i, (label, value) in enumerate(values):
        y = 34 + i * _ROW
        colour = _OURS if label.startswith(ours) else _OTHERS
        width = max(1.0, value / top * room)
        rows.append(_text(_LABELS - 8, y + 14, label, anchor="end"))
        rows.append(f'<rect x="{_LABELS}" y="{y}" width="{width:.1f}" height="{_ROW - 8}" fill="{colour}" rx="2"/>')
        rows.append(_text(_LABELS + width + 6, y + 14, number(value)))
    return _svg(34 + len(values) * _ROW + 6, rows)


def lines(title: str, across: str, unit: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Draw one line for each series of (x, y), both axes from zero."""
    points = [point for line in series.values() for point in line]
    right, top = max((x for x, _ in points), default=0) or 1, max((y for _, y in points), default=0) or 1
    left, bottom, width, height = 70, 250, _WIDTH - 250, 200

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x / right * width, bottom - y / top * height

    rows = [_text(0, 18, f"{title} ({unit})", "t"), _text(left + width / 2, bottom + 36, across, anchor="middle")]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = bottom - share * height
        rows.append(f'<line class="a" x1="{left}" y1="{y}" x2="{left + width}" y2="{y}"/>')
        rows.append(_text(left - 8, y + 4, number(share * top), anchor="end"))
    ticks = sorted({x for x, _ in points})
    rows += [_text(at(x, 0)[0], bottom + 18, number(x, 0), anchor="middle") for x in ticks]
    for i, (label, line) in enumerate(series.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        rows.append(f'<polyline class="p" stroke="{colour}" points="{path}"/>')
        rows += [f'<circle cx="{at(*point)[0]:.1f}" cy="{at(*point)[1]:.1f}" r="3" fill="{colour}"/>' for point in line]
        y = 50 + i * 20
        rows.append(f'<rect x="{left + width + 20}" y="{y - 9}" width="12" height="10" fill="{colour}"/>')
        rows.append(_text(left + width + 38, y, label))
    return _svg(bottom + 50, rows)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{name}>{escape(text)}</text>'


def _svg(height: float, rows: Sequence[str]) -> str:
    size = f'viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" height="{height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return "\n".join([head, _STYLE, *rows, "</svg>", ""])
