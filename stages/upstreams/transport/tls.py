"""TLS without a socket: encrypted bytes in, plain bytes out, and the reverse.

`trio.SSLStream` returns one record (16 KiB) per call and closes asynchronously. With buffers, one read of the socket is
decrypted completely, and a cancelled call can close its socket at once.
"""

from __future__ import annotations

import ssl

_READ_BYTES = 256 * 1024


def client_context(*, ca_file: str | None = None, verify: bool = True) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, or those in ``ca_file``, and offers only HTTP/1.1.

    Raises:
        OSError: if ``ca_file`` cannot be read (its subclass `ssl.SSLError` if it contains no certificate).
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
        is_ended: whether the peer has ended the session or the connection.
    """

    __slots__ = ("_incoming", "_object", "_outgoing", "is_ended")

    def __init__(self, context: ssl.SSLContext, server_hostname: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self.is_ended = False

    def handshake(self, received: bytes | None) -> tuple[bytes, bool]:
        """Continue the handshake; None starts it, empty bytes mean the end of the connection.

        Returns the bytes to send, and whether the handshake is complete.

        Raises:
            ssl.SSLError: if it fails; `ssl.SSLCertVerificationError` if the certificate is the reason.
        """
        self._take_in(received)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return self._outgoing.read(), False
        return self._outgoing.read(), True

    def pending_alert(self) -> bytes:
        """Return the alert that a failed handshake has for the peer, or nothing."""
        return self._outgoing.read()

    def encrypt(self, data: memoryview) -> bytes:
        """Return ``data`` encrypted, after pending records of the session itself.

        Raises:
            ssl.SSLError: if the session is broken.
        """
        while data:
            data = data[self._object.write(data) :]
        return self._outgoing.read()

    def decrypt(self, received: bytes) -> bytes:
        """Return everything that can be decrypted; empty bytes mean the end of the connection.

        An end without a closing alert is not an error: the framing shows whether an answer is complete or, if the body
        ends with the connection, its content does.

        Raises:
            ssl.SSLError: if the bytes do not belong to this session.
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
            if not parts:  # otherwise return the good part; the next call finds the fault again
                raise
        return b"".join(parts)

    def _take_in(self, received: bytes | None) -> None:
        if received:
            self._incoming.write(received)
        elif received is not None:
            self._incoming.write_eof()
