"""A worker asks for a successor after about `max_requests`."""

from __future__ import annotations

import socket
from typing import Any

from pipeline.gateway.http.lifeline import REPLACE_ME, Lifeline
from pipeline.gateway.recycling import RequestLimit


def test_it_asks_once_and_about_then() -> None:
    asked_at = set[int]()
    for _ in range(50):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        lifeline = Lifeline(theirs)
        ended: list[Any] = []
        limit = RequestLimit(100, lifeline, ended.append)
        with ours:
            for number in range(1, 201):
                limit.note_request(lambda: None)  # type: ignore[arg-type,return-value]
                try:
                    assert ours.recv(10) == REPLACE_ME
                except BlockingIOError:
                    continue
                asked_at.add(number)
            assert len(ended) == 200
            lifeline.close()
    assert 90 <= min(asked_at) < max(asked_at) <= 110
