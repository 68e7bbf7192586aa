"""Takes the screenshots of docs/latency-page.md from a running service.

Needs Chromium, and pngquant to make them small.

Usage, while the service is under load (`benchmarks/bench_paced.py`, say)::

    PYTHONPATH=.:tests python benchmarks/page_shots.py http://127.0.0.1:4000 KEY docs/img
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

from kit.page.browser import Tab, chromium

WARM_UP_S = 75
MOST_BYTES = 200_000
ROW = "#request-list tbody tr"


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the service, without /latency")
    parser.add_argument("key", help="the master key")
    parser.add_argument("folder", type=Path, help="where the pictures are written")
    parser.add_argument("--seconds", type=int, default=WARM_UP_S, help="how long the page watches before them")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)  # before it watches for a minute
    address = f"{options.url.rstrip('/').removesuffix('/latency')}/latency#key={options.key}"
    with chromium() as browser, browser.tab(height=1010) as tab:
        tab.open(address)
        tab.until("document.querySelector('#status')?.dataset.state === 'live'")
        tab.until("performance.getEntriesByType('navigation')[0].loadEventEnd")
        loaded = tab.run(
            "performance.getEntries().filter((one) => one.encodedBodySize && !one.name.includes('/now'))"
            ".map((one) => one.encodedBodySize)"
        )
        load_ms = tab.run("performance.getEntriesByType('navigation')[0].loadEventEnd")
        tab.run(
            "window.ticks = []; new PerformanceObserver((list) => ticks.push(...list.getEntries()))"
            ".observe({ entryTypes: ['measure'] })"
        )
        tab.run(f"new Promise((resolve) => setTimeout(resolve, {1000 * options.seconds}))")
        ticks = tab.run("ticks.map((one) => one.duration).sort((a, b) => b - a)")
        print(f"loaded {sum(loaded)} bytes of {len(loaded)} files in {load_ms:.0f} ms")
        print(f"{len(ticks)} updates, the longest took {ticks[0]:.1f} ms")
        save(tab, options.folder / "latency-light.png")
        tab.prefer(dark=True)
        save(tab, options.folder / "latency-dark.png")
        tab.prefer(dark=False)
        tab.click("#tab-traced")
        tab.until(f"document.querySelector('{ROW}')")
        tab.click(ROW)
        tab.until("document.querySelector('#waterfall canvas')")
        save(tab, options.folder / "latency-waterfall.png")
        tab.run("document.querySelector('#waterfall canvas').focus()")
        tab.press(*"n" * 9)
        save(tab, options.folder / "latency-batch.png", "#waterfall canvas")
        print(*tab.problems(), sep="\n", end="")


def save(tab: Tab, path: Path, selector: str = "") -> None:
    """Write what the tab shows, or the part of it that has an element, in at most 256 colours if pngquant is there."""
    tab.run("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    picture = tab.picture(selector)
    if pngquant := shutil.which("pngquant"):
        picture = subprocess.run([pngquant, "--speed", "1", "-"], input=picture, capture_output=True, check=True).stdout
    path.write_bytes(picture)
    note = "" if len(picture) <= MOST_BYTES else f": more than {MOST_BYTES}, install pngquant"
    print(f"{path}: {len(picture)} bytes{note}")


if __name__ == "__main__":
    main()
