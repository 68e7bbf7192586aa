"""Prints the table of docs/doctor.md, from a run of all checks against each proxy, good and bad.

PYTHONPATH=.:tests python -m kit.service.proxy_table
"""

from __future__ import annotations

import re
import ssl
import sys
import tempfile
from pathlib import Path

import trio
from kit.service.certificates import issue
from kit.service.proxies import CADDY, HAPROXY, NGINX, proxied
from kit.service.proxy_cases import CASES, Case, headrace_for_doctor, looked_at

from pipeline.gateway.doctor.findings import Finding

GOOD = tuple(Case(proxy, "as in deploy/", "", "ok") for proxy in (NGINX, HAPROXY, CADDY))
_OF_THE_TESTS = re.compile(r"127\.0\.0\.1:\d+")


def row(case: Case, findings: list[Finding]) -> str:
    """Return the row of a case: what was expected first, then what else was found."""
    notable = [one for one in findings if one.status in ("warning", "problem") and one.check != "address"]
    expected = [one for one in notable if one.check == case.check]
    others = [one for one in notable if one.check != case.check]
    if not notable:
        said = f"no finding in {len(findings)} checks"
    else:
        said = "; ".join(f"{one.measured} -> {one.remedy}" for one in expected) or "NOT FOUND"
    also = f" (also: {', '.join(dict.fromkeys(f'`{one.check}`' for one in others))})" if others else ""
    found = f"{case.status} `{case.check}`{also}" if notable else "-"
    text = _OF_THE_TESTS.sub("HOST", said).replace("|", "\\|")
    return f"| {case.proxy.name} | {case.name} | {found} | {text} |"


async def _run(case: Case, headrace: int) -> list[Finding]:
    folder = Path(tempfile.mkdtemp())
    certificate = issue(folder)
    tls = certificate.trusting if case.is_trusted else ssl.create_default_context()
    async with proxied(case.proxy, folder, certificate, [headrace], case.edits) as port:
        return await looked_at(f"{case.scheme}://127.0.0.1:{port}/cursor", tls)


def main() -> None:
    """Print it."""
    with headrace_for_doctor(Path(tempfile.mkdtemp())) as headrace:
        for case in (*GOOD, *CASES):
            sys.stdout.write(f"{row(case, trio.run(_run, case, headrace))}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
