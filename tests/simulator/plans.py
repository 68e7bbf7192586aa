"""What a seed draws: deployments, how upstreams answer each attempt, what clients do, and what the operator does."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from simulator.changes import Changes
from simulator.configurations import REQUEST_TIMEOUT_S, Configuration, KeyName, Kind
from simulator.network import LEAST_PIPE_BYTES, Connecting

from pipeline.gateway.config.settings import Execution

AnswerFault = Literal[
    "none",
    "reset",
    "closes",
    "stalls",
    "bad chunk",
    "bad json",
    "error event",
    "no terminal event",
    "junk lines",
    "status 500",
    "status 429",
    "status 400",
    "redirect",
    "closes before its head",
    "resets before its head",
    "garbage as its head",
    "silent before its head",
    "refuses the body early",
]
HARMLESS: Final = frozenset[AnswerFault]({"none", "junk lines"})

ClientBehaviour = Literal[
    "reads well",
    "reads slowly",
    "closes",
    "resets",
    "half-closes",
    "stalls",
    "stalls and closes",
    "pipelines",
    "pipelines and closes",
    "sends stray CRLF",
    "sends stray CRLF and closes",
    "closes during its upload",
    "stalls during its upload",
    "uploads slowly",
    "uploads in chunks",
    "sends too large a body",
    "declares too large a body",
    "sends bad JSON",
    "sends Connection: close",
    "sends garbage",
    "has a wrong key",
]
PATIENT: Final = frozenset[ClientBehaviour](
    {
        "reads well",
        "reads slowly",
        "pipelines",
        "sends stray CRLF",
        "uploads slowly",
        "uploads in chunks",
        "sends Connection: close",
    }
)
"""Such a client must get the answer if nothing else goes wrong."""
LEAVING: Final = frozenset[ClientBehaviour](
    {
        "closes",
        "resets",
        "half-closes",
        "stalls",
        "stalls and closes",
        "pipelines and closes",
        "sends stray CRLF and closes",
        "closes during its upload",
        "stalls during its upload",
        "sends garbage",
    }
)
"""Such a client may get a part of a response only."""

Operation = Literal["none", "drains", "cuts off", "stops hard"]

LONGEST_GAP_S: Final = 1.0


@dataclass
class AnswerPlan:
    """How an upstream answers one attempt.

    Attributes:
        texts: the deltas.
        fault: what goes wrong.
        at: before which event.
        gap_s: between two events.
        split_bytes: of each HTTP chunk and write.
        then_closes: whether the connection is closed, instead of answering, when the next request comes over it.
    """

    texts: list[str]
    fault: AnswerFault = "none"
    at: int = 0
    gap_s: float = 0.0
    split_bytes: int = 1_000_000
    then_closes: bool = False


@dataclass
class RequestPlan:
    """One request of a client; ``answers`` are those of its attempts, drawn when they are needed."""

    number: int
    model: str
    is_stream: bool
    is_cursor: bool
    padding_bytes: int
    is_large: bool
    key: KeyName = "master"
    answers: list[AnswerPlan] = field(default_factory=list)


@dataclass
class ClientPlan:
    """A client: its requests one after the other, over one connection; the behaviour concerns the last one.

    Attributes:
        thinking_s: how long it waits between two requests. Unless this is None, it connects again when the server has
            closed the connection between them.
    """

    number: int
    starts_s: float
    requests: list[RequestPlan]
    behaviour: ClientBehaviour
    after_s: float
    reads_bytes: int = 64 * 1024
    pause_s: float = 0.0
    idles: bool = False
    thinking_s: float | None = None


class WorldPlan:
    """Everything that is drawn before a world begins, and a source of what is drawn in its course.

    Args:
        seed: the same seed draws the same.
    """

    def __init__(self, seed: int) -> None:
        self.random = draw = random.Random(seed)
        kinds: dict[str, Kind] = {f"10.0.0.{number}": draw.choice(get_args(Kind)) for number in (1, 2, 3)}
        has_two = draw.random() < 0.5
        first = Configuration(
            kinds=kinds,
            first=("10.0.0.1", "10.0.0.3") if has_two else ("10.0.0.1",),
            second=("10.0.0.2",),
            has_fallback=draw.random() < 0.5,
            retries=draw.choice([0, 0, 1, 2]),
            request_timeout_s=draw.choice([None, REQUEST_TIMEOUT_S]),
            comments_s=draw.choice([0.0, 0.7]),
            max_upstream_connections=draw.choice([1, 2, 1000, 1000]),
            executes="fused" if draw.random() < 0.75 else "tasks",
        )
        self.executes: Execution = first.executes
        self.changes = Changes(seed, first)
        self.least_pipe_bytes = draw.choice([LEAST_PIPE_BYTES, 16 * 1024, 200 * 1024])
        # A third of the worlds have upstreams and connections without faults: their clients must be served.
        self.fault_share = draw.choice([0.0, 0.3, 0.7])
        operations: list[Operation] = ["drains", "drains", "cuts off", "stops hard"]
        self.operation: Operation = draw.choice(operations) if draw.random() < 0.3 else "none"
        self.operation_s = draw.choice([0.0, 0.01, 0.3, 2.0, 6.0])
        if self.operation == "none" and (cut_off_s := self.changes.cut_off_s()) is not None:
            self.operation, self.operation_s = "cuts off", cut_off_s
        self.requests: list[RequestPlan] = []
        count = max(draw.choice([1, 1, 2, 2, 3, 6]), self.changes.least_clients)
        self.clients = [self._client(number) for number in range(count)]
        self.has_connect_faults = False

    def _client(self, number: int) -> ClientPlan:
        draw = self.random
        behaviour: ClientBehaviour = "reads well"
        if draw.random() < 0.7:
            behaviour = draw.choice(get_args(ClientBehaviour))
        requests = [self._request() for _ in range(draw.choice([1, 1, 1, 2, 3]))]
        if behaviour.startswith("pipelines") and len(requests) == 1:
            requests.append(self._request())
        if behaviour.startswith("pipelines"):  # our server resets a client that sends much ahead
            requests[-1].padding_bytes = min(requests[-1].padding_bytes, 3000)
        if behaviour.startswith("stalls") or behaviour == "reads slowly":
            requests[-1].is_large = draw.random() < 0.7
        return ClientPlan(
            number,
            starts_s=draw.choice([0.0, 0.0, 0.001, 0.2, 1.0]),
            requests=requests,
            behaviour=behaviour,
            after_s=draw.choice([0.0, 0.0005, 0.005, 0.05, 0.3, 1.0, 4.0]),
            reads_bytes=draw.choice([4000, 8000]) if behaviour == "reads slowly" else 64 * 1024,
            pause_s=0.01 if behaviour == "reads slowly" else 0.0,
            idles=draw.random() < 0.2,
            thinking_s=self.changes.thinking_s(),
        )

    def _request(self) -> RequestPlan:
        draw = self.random
        request = RequestPlan(
            len(self.requests),
            model=draw.choice(["first", "first", "second"]),
            is_stream=draw.random() < 0.75,
            is_cursor=draw.random() < 0.4,
            padding_bytes=draw.choice([0, 0, 100, 3000, 30_000, 120_000]),
            is_large=False,
            key=self.changes.key,
        )
        self.requests.append(request)
        return request

    def answer(self, request: RequestPlan) -> AnswerPlan:
        """Draw how the next attempt of a request is answered."""
        draw, tag = self.random, f"<{request.number}.{len(request.answers)}."
        if request.is_large:
            texts = [f"{tag}{index}>" + "x" * 16_000 for index in range(40 if self.executes == "fused" else 70)]
        else:
            sizes = draw.choices([0, 5, 300, 5000], [4, 4, 2, 1], k=draw.randint(1, 8))
            texts = [f"{tag}{index}>" + "x" * size for index, size in enumerate(sizes)]
        fault: AnswerFault = "none"
        if draw.random() < self.fault_share:
            fault = draw.choice(get_args(AnswerFault))
        elif draw.random() < 0.1:
            fault = "junk lines"
        split_bytes = 1_000_000 if request.is_large else draw.choice([7, 100, 1000, 1_000_000])
        if split_bytes < 1000:
            texts = [text[: 20 * split_bytes] for text in texts]
        plan = AnswerPlan(
            texts,
            fault,
            at=draw.randint(0, len(texts) + 2),
            gap_s=0.0 if request.is_large else draw.choice([0.0, 0.0, 0.001, 0.1, LONGEST_GAP_S]),
            split_bytes=split_bytes,
            then_closes=draw.random() < 0.3,
        )
        request.answers.append(plan)
        return plan

    def connecting(self, host: str) -> Connecting:
        """Draw how the next connection goes."""
        if self.random.random() < self.fault_share / 5:
            self.has_connect_faults = True
            return self.random.choice(["refused", "refused later", "hangs"])
        return self.random.choice(["ok", "ok", "slow"])

    def connect_delay_s(self) -> float:
        """Draw how long a connection takes that takes its time."""
        return self.random.choice([0.001, 0.01, 0.2])

    def pipe_bytes(self) -> int:
        """Draw the size of a pipe."""
        return self.random.choice([self.least_pipe_bytes, 2 * self.least_pipe_bytes])
