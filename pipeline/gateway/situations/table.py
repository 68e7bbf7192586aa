"""The situations: what is served, who asks, and what is lost where. The tutorial and the tests share this table."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct


class Load(Struct, frozen=True):
    """Clients that begin together, each with one streaming request.

    Attributes:
        model: the model name that they ask for.
        clients: how many they are.
        pause_ms: for how long each stops reading after the head of its response, with a small receive buffer.
    """

    model: str
    clients: int
    pause_ms: float = 0


class Loss(Struct, frozen=True):
    """A time that is lost on purpose, and where the record of a request shows it.

    Attributes:
        ms: how long, in each request that has it.
        kind: what kind of figure shows it: the phase between two points, the time of a party, the work or the waits of
            a stage, or a stall of the loop.
        name: which one: ``upstream_sent..upstream_head``, ``client``, ``chaos_busy``.
        deployment: the id of the deployment whose requests have it; None for all of them.
        is_longest: whether only the request that waited longest has all of it.
    """

    ms: float
    kind: Literal["phase", "party", "busy", "outside", "stall"]
    name: str
    deployment: str | None = None
    is_longest: bool = False


class Situation(Struct, frozen=True):
    """One situation.

    Attributes:
        name: what the command calls it.
        about: what happens, in one sentence.
        models: the deployments: the model name, the id and the script of each.
        settings: more ``pipeline_settings``, in YAML's flow style.
        loads: who asks.
        loss: what is lost.
        party: whose time it is.
        culprit: what ``headrace why`` has to find; the stage or the deployment is in ``loss``.
    """

    name: str
    about: str
    models: tuple[tuple[str, str, str], ...]
    loads: tuple[Load, ...]
    loss: Loss
    party: Literal["client", "ours", "upstream"]
    culprit: Literal["head", "tokens", "reading", "stage", "blocked_loop", "overload", "slow_deployment"]
    settings: str = ""

    def config(self, port: int) -> str:
        """Return the configuration of a service on this port; the master key is in the environment."""
        models = "".join(
            f"  - {{model_name: {name}, litellm_params: {{model: canned/{script}}}, model_info: {{id: {id}}}}}\n"
            for name, id, script in self.models
        )
        # A loop that is held on purpose must not have new requests refused.
        own = f"host: 127.0.0.1, port: {port}, workers: 1, max_lag_ms: 0, trace_one_in: 1"
        return (
            f"# {self.about}\n"
            f"model_list:\n{models}"
            "general_settings: {master_key: os.environ/HEADRACE_MASTER_KEY}\n"
            f"pipeline_settings: {{{own}{self.settings and ', '}{self.settings}}}\n"
        )


def _one(script: str) -> tuple[tuple[str, str, str], ...]:
    return (("chat", "chat", f"timed:{script}"),)


_HOLD = "stages: [{use: chaos_busy, when: {models: [rude]}, options: {ms: 600, every: 10}}]"

_ALL: Final = (
    Situation(
        "slow-head",
        "The upstream takes 800 ms to begin its answer.",
        _one("head=800ms;tokens=10;gap=10ms"),
        (Load("chat", 4),),
        Loss(800, "phase", "upstream_sent..upstream_head"),
        "upstream",
        "head",
    ),
    Situation(
        "slow-tokens",
        "The upstream begins at once, and then takes 40 ms for each token.",
        _one("head=50ms;tokens=26;gap=40ms"),
        (Load("chat", 4),),
        Loss(1000, "phase", "first_token..upstream_end"),
        "upstream",
        "tokens",
    ),
    Situation(
        "slow-client",
        "The client stops reading for a second, in the middle of a long answer.",
        _one("tokens=160;bytes=16384"),
        (Load("chat", 1, pause_ms=1000),),
        Loss(1000, "party", "client"),
        "client",
        "reading",
    ),
    Situation(
        "slow-stage",
        "A token comes every 20 ms, and a stage computes for 16 ms with each.",
        _one("head=50ms;tokens=50;gap=20ms"),
        (Load("chat", 1),),
        Loss(800, "busy", "chaos_busy"),
        "ours",
        "stage",
        "stages: [{use: chaos_busy, options: {ms: 16}}]",
    ),
    Situation(
        "waiting-stage",
        "A token comes every 60 ms, and a stage waits 50 ms for a service with each.",
        _one("head=50ms;tokens=20;gap=60ms"),
        (Load("chat", 4),),
        Loss(1000, "outside", "chaos_wait"),
        "ours",
        "stage",
        "stages: [{use: chaos_wait, options: {ms: 50}}]",
    ),
    Situation(
        "blocked-loop",
        "A stage computes for 600 ms for one request, and 40 other streams stand still.",
        (
            ("chat", "chat", "timed:head=20ms;tokens=20;gap=40ms"),
            ("rude", "rude", "timed:first=150ms;tokens=15;gap=1ms"),
        ),
        (Load("chat", 40), Load("rude", 1)),
        Loss(600, "stall", "chaos_busy"),
        "ours",
        "blocked_loop",
        _HOLD,
    ),
    Situation(
        "overload",
        "Eight requests come together, two may run at a time, and each takes 300 ms.",
        _one("first=300ms;tokens=5"),
        (Load("chat", 8),),
        Loss(900, "phase", "head_read..admitted", is_longest=True),
        "ours",
        "overload",
        "max_requests_in_flight: 2",
    ),
    Situation(
        "slow-deployment",
        "Of two deployments of a model one takes 800 ms to begin, the other 50 ms.",
        (("chat", "fast", "timed:head=50ms;tokens=10;gap=5ms"), ("chat", "slow", "timed:head=800ms;tokens=10;gap=5ms")),
        (Load("chat", 16),),
        Loss(800, "phase", "upstream_sent..upstream_head", deployment="slow"),
        "upstream",
        "slow_deployment",
    ),
)

SITUATIONS: Final = {situation.name: situation for situation in _ALL}
"""By name, in the order in which the tutorial has them."""
