"""The image's HEALTHCHECK: ends with status 0 if the container's service answers /livez, else with 1 and a reason.

It runs every few seconds for as long as the container lives, so it must be cheap: ``python -I -S``, and `_socket`,
since importing `socket` takes as much CPU time as all the rest. It asks for liveness and not for readiness, because a
container that drains is well.
"""

import os
import sys
from _socket import AF_INET, SOCK_STREAM, socket

PORT = os.environ.get("HEADRACE_PORT") or os.environ.get("PORT") or "4000"
TIMEOUT_S = 4  # less than the HEALTHCHECK's
REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def first_bytes(*, tls: bool = False) -> bytes:
    """Return the beginning of the answer; empty if the connection is closed instead."""
    connection = socket(AF_INET, SOCK_STREAM)
    connection.settimeout(TIMEOUT_S)
    connection.connect(("127.0.0.1", int(PORT)))
    if tls:
        import socket as sockets  # these two take longer than all the rest
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the peer is this container
        secured = context.wrap_socket(sockets.socket(fileno=connection.detach()))
        secured.sendall(REQUEST)
        return secured.recv(64)
    connection.sendall(REQUEST)
    return connection.recv(64)


def is_http(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/")


def main() -> None:
    try:
        answer = first_bytes()
        if not is_http(answer):  # a port with TLS
            answer = first_bytes(tls=True)
    except (OSError, ValueError, OverflowError) as error:  # PORT is not a number, or above 65535
        sys.exit(f"port {PORT} does not answer: {error}")
    if answer.split(b" ")[1:2] != [b"200"]:
        sys.exit(f"port {PORT} answers /livez with {answer!r}")


main()
