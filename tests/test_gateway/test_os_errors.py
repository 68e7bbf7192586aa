"""What the system refuses is a sentence that says what to do."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from pipeline.gateway.http.sockets import ListenError, bind_socket
from pipeline.gateway.os_errors import listen_sentence, sentence_of


def refused(number: int, *, host: str = "127.0.0.1", port: int = 4000) -> ListenError:
    return ListenError(OSError(number, os.strerror(number)), host, port)


LISTENING = [
    (
        refused(errno.EADDRINUSE),
        ", which another program uses: choose another port, such as --port 4001, or stop that program",
    ),
    (refused(errno.EADDRINUSE, port=65535), ": choose another port, such as --port 65534, or stop that program"),
    (
        refused(errno.EACCES, port=80),
        "port 80, which this user may not use: choose a port from 1024 on, such as --port 4000",
    ),
    (
        refused(errno.EADDRNOTAVAIL, host="192.0.2.1"),
        ": this machine does not have that address: write one that it has",
    ),
    (refused(errno.ENOBUFS), "cannot listen on 127.0.0.1 port 4000: No buffer space available"),
]


@pytest.mark.parametrize(("error", "words"), LISTENING)
def test_an_address_that_cannot_be_listened_on_is_named_with_what_to_do(error: ListenError, words: str) -> None:
    said = sentence_of(error)
    assert said.startswith(f"cannot listen on {error.host} port {error.port}")
    assert words in said
    assert "Errno" not in said


def test_where_no_flag_can_change_it_none_is_named() -> None:
    said = listen_sentence(refused(errno.EADDRINUSE, port=9464), is_flag=False)
    assert "such as 9465, or stop" in said
    assert "--" not in said


def test_a_host_without_an_address_is_one_of_its_own() -> None:
    with pytest.raises(ListenError) as error:
        bind_socket("host.invalid", 1)
    assert "no address is known for that host" in sentence_of(error.value)


def test_the_real_errors_of_the_system_are_recognised() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ListenError) as error:
        bind_socket("127.0.0.1", taken.getsockname()[1])
    assert "which another program uses" in sentence_of(error.value)
    with pytest.raises(ListenError) as error:
        bind_socket("192.0.2.1", 1234)  # RFC 5737: reserved for documentation
    assert "does not have that address" in sentence_of(error.value)


def test_a_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "a").read_text()
    assert sentence_of(missing.value) == (
        f"{tmp_path}/a: No such file or directory: check its name, its permissions, and those of its folder"
    )


def test_an_error_without_a_file_or_a_number_has_its_own_words() -> None:
    assert sentence_of(OSError("something else")) == "something else"
    assert sentence_of(OSError(errno.EMFILE, "Too many open files")) == "Too many open files"
    assert sentence_of(OSError()) == "OSError"
