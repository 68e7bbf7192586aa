"""A certificate for the services of tests."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

import trustme


class Certificate(NamedTuple):
    """A certificate for 127.0.0.1, as a service needs it, and what a client needs to trust it."""

    trusting: ssl.SSLContext
    certfile: str
    keyfile: str


def issue(folder: Path) -> Certificate:
    """Write a new certificate into ``folder``, and its authority as ``ca.pem``."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for index, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(folder / "cert.pem", append=index > 0)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return Certificate(context, str(folder / "cert.pem"), str(folder / "key.pem"))
