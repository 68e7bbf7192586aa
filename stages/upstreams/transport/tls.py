"""TLS without a socket: bytes of the wire in, bytes of the application out.

`trio.SSLStream` gives one record (16 KiB) a call and closes asynchronously. Working on buffers, one read of the socket
is decrypted whole, and a cancelled call can close its socket at once.
"""

from __future__ import annotations

import ssl

_READ_BYTES = 256 * 1024


def client_context(*, ca_file: str | None = None, verify: bool = True) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, or those of ``ca_file``, and speaks HTTP/1.1 only.

    Raises:
        OSError: if ``ca_file`` cannot be read (`ssl.SSLError`, which is one, if it holds no certificate).
    """
    context = ssl.create_default_context(cafile=ca_file)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


class TlsSession:
    """The client's end of one TLS connection.

    Attributes:
        is_ended: whether the far side has ended the session, or the connection.
    """

    __slots__ = ("_incoming", "_object", "_outgoing", "is_ended")

    def __init__(self, context: ssl.SSLContext, server_hostname: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self.is_ended = False

    def handshake(self, received: bytes | None) -> tuple[bytes, bool]:
        """Go on with the handshake; None starts it, empty bytes are the end of the connection.

        Gives what must be sent, and whether the handshake is complete.

        Raises:
            ssl.SSLError: if it fails, also because of the certificate (`ssl.SSLCertVerificationError`).
        """
        self._take_in(received)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return self._outgoing.read(), False
        return self._outgoing.read(), True

    def farewell(self) -> bytes:
        """Return what a failed handshake wants to tell the far side: an alert, or nothing."""
        return self._outgoing.read()

    def encrypt(self, data: bytes) -> bytes:
        """Return ``data`` as it goes over the wire, after what the session itself has to say.

        Raises:
            ssl.SSLError: if the session is broken.
        """
        rest = memoryview(data)
        while rest:
            rest = rest[self._object.write(rest) :]
        return self._outgoing.read()

    def decrypt(self, received: bytes) -> bytes:
        """Return all that can be read; empty bytes in are the end of the connection.

        An end without a closing alert is an end like any other: whether an answer is complete is said by its framing,
        and for a body that ends with the connection, by what is in it.

        Raises:
            ssl.SSLError: if the bytes are not of this session.
        """
        self._take_in(received)
        parts: list[bytes] = []
        try:
            while part := self._object.read(_READ_BYTES):
                parts.append(part)
            self.is_ended = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self.is_ended = True
        except ssl.SSLError:
            if not parts:  # else the good part first; the fault is found again by the next call
                raise
        return b"".join(parts)

    def _take_in(self, received: bytes | None) -> None:
        if received:
            self._incoming.write(received)
        elif received is not None:
            self._incoming.write_eof()
