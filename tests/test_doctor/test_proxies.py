"""doctor against real proxies: those of deploy/ give no finding, and each bad setting is found by its name."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.needs import PROXIES, needs
from kit.service.certificates import issue
from kit.service.proxies import CADDY, HAPROXY, NGINX, Proxy, proxied
from kit.service.proxy_cases import CASES, Case, headrace_for_doctor, looked_at

from pipeline.gateway.doctor.findings import CHECKS
from pipeline.gateway.doctor.visit import FIRST_OF_PUBLIC

pytestmark = [pytest.mark.deploy, needs(PROXIES), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def headrace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with headrace_for_doctor(tmp_path_factory.mktemp("headrace")) as port:
        yield port


@pytest.mark.parametrize("proxy", [NGINX, HAPROXY, CADDY], ids=lambda proxy: proxy.name)
async def test_the_configuration_of_deploy_gives_no_finding(proxy: Proxy, headrace: int, tmp_path: Path) -> None:
    certificate = issue(tmp_path)
    async with proxied(proxy, tmp_path, certificate, [headrace], {}) as port:
        findings = await looked_at(f"https://127.0.0.1:{port}/cursor", certificate.trusting)
    by_check = {finding.check: finding for finding in findings}
    public = list(CHECKS)[list(CHECKS).index(FIRST_OF_PUBLIC) :]
    assert sorted(by_check) == sorted(public)
    # The tests' address is a private one.
    assert {check: found for check, found in by_check.items() if found.status != "ok"} == {
        "address": by_check["address"]
    }
    assert proxy.name in by_check["server"].measured
    assert "0 comments" not in by_check["idle"].measured


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_bad_setting_is_found_by_its_name(case: Case, headrace: int, tmp_path: Path) -> None:
    certificate = issue(tmp_path)
    tls = certificate.trusting if case.is_trusted else ssl.create_default_context()
    async with proxied(case.proxy, tmp_path, certificate, [headrace], case.edits) as port:
        findings = await looked_at(f"{case.scheme}://127.0.0.1:{port}/cursor", tls, only={case.check})
    found = [finding for finding in findings if finding.check == case.check]
    assert [finding.status for finding in found] == [case.status], findings
    assert case.figure in found[0].measured
    assert found[0].remedy
