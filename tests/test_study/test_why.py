"""`why` names the culprit, with a figure that is within 5 % of what happened."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.study.made import BEGAN_S, Line, as_request, as_stall, request_line, stall_line, varied_lines
from kit.study.real import HEAD_S

from pipeline.study.peers import Peers
from pipeline.study.recording import StudyError
from pipeline.study.tables import WIDTH, Paint
from pipeline.study.why import Explanation, explained
from pipeline.study.why_page import explanations, why_page

PAST_ATTEMPT = {"deployment": "d-0", "model": "m", "end": "UE", "began_ms": 0.1, "ms": 900.0, "events": 0}
LAST_ATTEMPT = {"deployment": "d-1", "model": "m", "end": "OK", "began_ms": 900.1, "ms": 160.0, "events": 20}


def why(line: Line, stalls: Sequence[Line] = (), others: Sequence[Line] = ()) -> Explanation:
    peers = Peers()
    for other in others:
        peers.add(as_request(other))
    return explained(as_request(line), [as_stall(stall) for stall in stalls], peers)


@pytest.mark.parametrize(
    ("figures", "kind", "party", "ms"),
    [
        ({"head_ms": 800}, "head", "upstream", 800),
        ({"first_ms": 800}, "first_token", "upstream", 800),
        ({"tokens_ms": 1000}, "tokens", "upstream", 1010),  # the first one is one of them
        ({"connect_ms": 700}, "connect", "upstream", 700),
        ({"upload_ms": 700}, "upload", "client", 700),
        ({"reading_ms": 1500}, "reading", "client", 1500),
        ({"work_ms": {"shout": 500}}, "stage", "ours", 500),
        ({"wait_ms": {"steer": 500}}, "stage", "ours", 500),
        ({"queue_ms": 900}, "overload", "ours", 900),
        ({"loop_ms": 600}, "overload", "ours", 600),
        ({"arrival_ms": 600}, "overload", "ours", 600.5),
        ({"attempts": [PAST_ATTEMPT, LAST_ATTEMPT]}, "attempts", "upstream", 900),
    ],
)  # fmt: skip
def test_what_took_longest_is_named(figures: dict[str, Any], kind: str, party: str, ms: float) -> None:
    found = why(request_line(**figures))
    assert (found.culprit.kind, found.culprit.party) == (kind, party), found.sentence
    assert found.culprit.ms == pytest.approx(ms, rel=0.001)


def test_the_sentence_names_the_part_of_the_first_tokens_time() -> None:
    assert why(request_line(head_ms=412, first_ms=3, tokens_ms=50)).sentence == (
        "412 ms of 415 ms until the first token was the upstream's (deployment d-1), between the request being sent "
        "and the head of its answer; client 0.10 ms, ours 0 ms."
    )
    assert why(request_line(work_ms={"shout": 500})).sentence == (
        "500 ms of 662 ms in total was ours: the stage shout worked 500 ms; the rest of ours 1.3 ms, client 1.1 ms, "
        "upstream 160 ms."
    )
    assert why(request_line(queue_ms=900)).sentence.startswith(
        "900 ms of 960 ms until the first token was ours: it waited for its turn (max_requests_in_flight), so headrace "
        "is overloaded; "
    )


def test_the_attempt_that_took_longest_is_named_and_one_that_was_given_up_has_not_failed() -> None:
    short = {**PAST_ATTEMPT, "deployment": "d-9", "ms": 40.0}
    long = {**PAST_ATTEMPT, "began_ms": 40.1, "ms": 860.0}
    found = why(request_line(attempts=[short, long, LAST_ATTEMPT]))
    assert (found.culprit.kind, found.culprit.deployment) == ("attempts", "d-0")
    assert "was the upstream's, in attempts that failed (d-9 UE, d-0 UE); " in found.sentence

    hedged = {**PAST_ATTEMPT, "end": "given_up", "ms": 1060.0}  # it went on while the last one answered
    line = request_line(attempts=[{**hedged, "ms": 900.0}, LAST_ATTEMPT])
    line["attempts"][0] = hedged
    found = why(line)
    assert (found.culprit.kind, found.culprit.deployment) == ("attempts", "d-0")
    assert found.culprit.ms == pytest.approx(900, rel=0.001)
    assert "was the upstream's, in attempts that were given up (d-0); " in found.sentence


def test_the_delay_of_a_wrong_key_is_the_clients() -> None:
    line = request_line(end="AU", error="unauthorized", status=401, arrival_ms=5, upload_ms=0)
    line |= {"points_ms": {"head_read": 5.0, "first_byte_out": 1006.0, "ended": 1006.0}, "total_ms": 1006.0}
    line |= {"party_ms": {"client": 1003.0, "ours": 3.0, "upstream": 0.0}, "stages": {}, "lanes": {}, "links": {}}
    found = why(line)
    assert (found.culprit.kind, found.culprit.party, found.culprit.ms) == ("delay", "client", 998)
    assert "was the client's: its key was wrong, as several before it, so that the answer was delayed" in found.sentence


def test_time_of_ours_that_nothing_explains_is_not_called_overload() -> None:
    line = request_line(loop_ms=900)
    for waits in (line["lanes"]["call_upstream"], line["links"]["a>b"]):
        waits["ready_ms"] = 100.0
    found = why(line)
    assert (found.culprit.kind, found.culprit.party) == ("unknown", "ours")
    assert "ours, but no stage worked or waited for so long" in found.sentence
    line["links"]["a>b"]["ready_ms"] = 500.0
    assert why(line).culprit.kind == "overload"


def test_a_failed_request_says_how_it_ended() -> None:
    line = request_line(head_ms=30_000, end="UT", error="upstream_timeout")
    for point in ("upstream_head", "first_event", "first_token", "first_token_out"):
        del line["points_ms"][point]
    found = why(line)
    assert found.culprit.kind == "head"
    assert found.sentence.endswith(" It ended with UT (upstream_timeout).")


def test_a_blocked_loop_is_the_fault_of_the_stage_that_held_it() -> None:
    victim = request_line("victim", loop_ms=500)
    ended_s = BEGAN_S + victim["total_ms"] / 1000
    stalls = [
        stall_line(ended_s - 0.3, 200.0, "shout", "r-2"),
        stall_line(ended_s - 0.05, 250.0, "shout", "r-2"),
        stall_line(ended_s - 0.01, 30.0, "purr", "r-3"),
        stall_line(ended_s - 10, 9000.0, "long_ago", "r-4"),
        {**stall_line(ended_s, 300.0, "elsewhere", "r-5"), "worker": 2},
        stall_line(ended_s - 0.1, 400.0, "its_own", "victim"),
    ]
    found = why(victim, stalls)
    assert (found.culprit.kind, found.culprit.stage, found.culprit.request_id) == ("blocked_loop", "shout", "r-2")
    assert found.culprit.ms == pytest.approx(480, abs=3)
    assert "the stage shout of request r-2 (and 1 others) held the loop in 3 stalls" in found.sentence
    assert {one["stage"]: one["ms"] for one in found.stalls} == pytest.approx({"shout": 450, "purr": 30})


def test_only_the_part_of_a_stall_that_a_request_saw_counts() -> None:
    victim = request_line("victim", arrival_ms=400)
    found = why(victim, [stall_line(BEGAN_S + 0.4, 1000.0)])
    assert found.culprit.kind == "blocked_loop"
    assert found.culprit.ms == pytest.approx(400, abs=2)


def test_a_stall_that_was_logged_late_still_explains_the_wait() -> None:
    victim = request_line("victim", arrival_ms=400)
    found = why(victim, [stall_line(BEGAN_S + 1.4, 402.0)])
    assert (found.culprit.kind, found.culprit.stage) == ("blocked_loop", "shout")


@pytest.mark.parametrize(("logged_ms", "named_ms"), [(700.0, 700), (100.0, 900)])
def test_stalls_that_were_not_logged_are_part_of_it_if_they_must_be(logged_ms: float, named_ms: float) -> None:
    victim = request_line("victim", loop_ms=900, tokens_ms=10)
    found = why(victim, [{**stall_line(BEGAN_S + 0.9, logged_ms), "unlogged": 9}])
    assert found.culprit.kind == "blocked_loop"
    assert found.culprit.ms == pytest.approx(named_ms, abs=2)
    assert "held the loop, as did 9 shorter stalls that were not logged" in found.sentence


def test_stalls_do_not_explain_what_the_upstream_took() -> None:
    slow = request_line(head_ms=2000)
    assert why(slow, [stall_line(BEGAN_S + 1, 100.0)]).culprit.kind == "head"


def test_the_slow_deployment_of_two_is_named() -> None:
    others = [request_line(f"f-{at}", head_ms=200 + at, deployment="fast") for at in range(20)]
    others += [request_line(f"s-{at}", head_ms=2100 + at, deployment="slow") for at in range(20)]
    found = why(others[-1], others=others)
    assert (found.culprit.kind, found.culprit.deployment) == ("slow_deployment", "slow")
    assert found.culprit.ms == 2119
    assert found.culprit.usual_ms == pytest.approx(209.5)
    assert "deployment slow took so long between the request being sent and the head of its answer" in found.sentence
    assert "others of this model 210 ms" in found.sentence


def test_one_slow_answer_of_a_deployment_that_is_usually_fast_does_not_make_it_slow() -> None:
    others = [request_line(f"{name}-{at}", head_ms=200, deployment=name) for at in range(20) for name in ("a", "b")]
    found = why(request_line("r", head_ms=2000, deployment="a"), others=others)
    assert (found.culprit.kind, found.culprit.usual_ms) == ("head", 200)
    assert "(usually 200 ms)" in found.sentence


def test_what_is_unusual_is_named_before_what_is_always_long() -> None:
    others = [request_line(f"r-{at}", tokens_ms=5000) for at in range(10)]
    slow = request_line("slow", tokens_ms=5000, queue_ms=2500)
    assert why(slow).culprit.kind == "tokens"
    found = why(slow, others=others)
    assert (found.culprit.kind, found.culprit.ms, found.culprit.usual_ms) == ("overload", 2500, 0)


def test_real_requests_are_explained(real: list[dict[str, Any]]) -> None:
    found = {line["request_id"].partition("-")[0]: why(line) for line in real}
    assert found["slow"].culprit.kind == "head"
    assert HEAD_S * 1000 - 1 <= found["slow"].culprit.ms <= found["slow"].total_ms  # a busy machine wakes it late
    assert found["failing"].culprit.kind in ("pause", "attempts", "tokens")
    for one in found.values():
        assert all(len(line) <= WIDTH for line in why_page(one, Paint()))


def test_the_slowest_and_the_asked_request_are_chosen() -> None:
    events = [as_request(line) for line in varied_lines(50, seed=1, head_ms=1)]
    slowest = sorted(events, key=lambda event: -event.total_ms)
    assert [one.request_id for one in explanations(events, slowest=3)] == [event.request_id for event in slowest[:3]]
    assert [one.request_id for one in explanations(events, request_id="r-1-7")] == ["r-1-7"]
    with pytest.raises(StudyError, match="no request with the id '1-49' is in the recording; these contain it: r-1-49"):
        explanations(events, request_id="1-49")


@given(st.randoms(use_true_random=False), st.floats(0, 1))
def test_a_record_that_lacks_anything_never_fails(chance: random.Random, share: float) -> None:
    def thinned(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: thinned(item) for name, item in value.items() if chance.random() < share}
        return value

    attempts = [{**PAST_ATTEMPT, "stages": {"call_upstream": {"outside_ms": 5.0}}}, LAST_ATTEMPT]
    line = thinned(request_line(attempts=attempts, queue_ms=1, arounds_ms={"cache": 1.0}))
    found = explained(as_request(line), [as_stall(thinned(stall_line(BEGAN_S, 100.0)))])
    assert found.sentence
    assert why_page(found, Paint())
