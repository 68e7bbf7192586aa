"""The families of figures that each process has: their names, kinds and labels, and what they count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeline.series import Kind


@dataclass(frozen=True, slots=True)
class Known:
    """A family of series that each process has.

    Attributes:
        name: as it is exported.
        kind: what it counts, and how.
        labels: the names of its labels.
        about: what it counts, in a sentence.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    about: str


REQUESTS: Final = "headrace_requests_total"
IN_FLIGHT: Final = "headrace_in_flight"
LOST: Final = "headrace_requests_lost_total"

FAMILIES: Final[tuple[Known, ...]] = (
    Known(REQUESTS, Kind.COUNT, ("end",), "Requests that have ended, by their end code."),
    Known(IN_FLIGHT, Kind.GAUGE, (), "Requests that run now."),
    Known(LOST, Kind.COUNT, (), "Requests that ran in a process when it was killed."),
    Known(
        "headrace_refused_at_door_total",
        Kind.COUNT,
        (),
        "Requests that were refused because the loop was overloaded, before anything was read of them.",
    ),
    Known(
        "headrace_request_seconds",
        Kind.DURATIONS,
        ("deployment", "stream", "end"),
        "From the arrival of a request's first byte to its end.",
    ),
    Known(
        "headrace_request_phase_seconds_total",
        Kind.SECONDS,
        ("phase",),
        "Time of finished requests until they passed a point, since the point before.",
    ),
    Known(
        "headrace_request_party_seconds_total",
        Kind.SECONDS,
        ("party",),
        "Whose time it was: the client's, ours or the upstream's. The three sum to the time of all finished requests.",
    ),
    Known(
        "headrace_first_token_seconds",
        Kind.DURATIONS,
        ("deployment",),
        "From the arrival of a request's first byte until the client's socket had accepted the first token.",
    ),
    Known(
        "headrace_upstream_first_token_seconds",
        Kind.DURATIONS,
        ("deployment",),
        "From the moment that a request was sent to the upstream until its first token was decoded.",
    ),
    Known(
        "headrace_upstream_seconds",
        Kind.DURATIONS,
        ("deployment", "end"),
        "From the start of an attempt at an answer until the end of the upstream's answer.",
    ),
    Known(
        "headrace_chunk_gap_seconds",
        Kind.DURATIONS,
        ("side",),
        "Between two batches of an answer: as they arrived from the upstream, and as the client's socket took them.",
    ),
    Known(
        "headrace_transit_seconds",
        Kind.DURATIONS,
        (),
        "From the arrival of a batch until the client's socket had accepted all that came of it.",
    ),
    Known(
        "headrace_before_handler_seconds",
        Kind.DURATIONS,
        (),
        "From the arrival of a request's first byte, by the kernel, until its head had been read.",
    ),
    Known(
        "headrace_cancel_seconds",
        Kind.DURATIONS,
        (),
        "From the moment that a client had left until its upstream's connection was closed.",
    ),
    Known("headrace_lane_seconds_total", Kind.SECONDS, ("lane", "state"), "Time of tasks, by their state."),
    Known("headrace_stage_busy_seconds_total", Kind.SECONDS, ("stage",), "Time in which a stage's own code ran."),
    Known(
        "headrace_stage_busy_seconds",
        Kind.DURATIONS,
        ("stage",),
        "How long a stage worked at one batch, in the requests that were traced.",
    ),
    Known("headrace_stage_outside_seconds_total", Kind.SECONDS, ("stage",), "Time in a stage's declared waits."),
    Known(
        "headrace_stage_events_total",
        Kind.COUNT,
        ("stage", "direction"),
        "Events that a stage took (in) and gave (out).",
    ),
    Known(
        "headrace_link_wait_seconds",
        Kind.DURATIONS,
        ("link", "kind"),
        "How long a batch waited between two tasks: for the loop (ready), or for a task at work (queued).",
    ),
    Known("headrace_link_full_seconds_total", Kind.SECONDS, ("link",), "Time in which a task waited for room."),
    Known("headrace_link_batches_total", Kind.COUNT, ("link",), "Batches that went from one task to another."),
    Known("headrace_link_depth", Kind.GAUGE, ("link",), "Batches that wait now, while somebody looks."),
    Known(
        "headrace_loop_lag_seconds",
        Kind.GAUGE,
        ("worker",),
        "How long the loop is held at a time, on average over its last second.",
    ),
    Known("headrace_stalls_total", Kind.COUNT, ("stage",), "Times that the loop was held for long."),
    Known("headrace_stall_seconds_total", Kind.SECONDS, ("stage",), "Time in which the loop was held for long."),
    Known("headrace_gc_seconds", Kind.DURATIONS, (), "How long collections of garbage took."),
    Known("headrace_sockets", Kind.GAUGE, ("side",), "Open connections of clients, and to upstreams."),
    Known("headrace_resident_bytes", Kind.GAUGE, ("worker",), "Memory of a process that is in use."),
    Known(
        "headrace_log_lines_dropped_total",
        Kind.COUNT,
        (),
        "Lines of the log that were lost because nobody read them fast enough.",
    ),
    Known("headrace_recorder_bytes", Kind.GAUGE, (), "What the flight recorder holds."),
    Known("headrace_tokens_total", Kind.COUNT, ("deployment", "direction"), "Tokens, as upstreams have counted them."),
    Known(
        "headrace_request_tokens",
        Kind.SIZES,
        ("deployment", "direction"),
        "Tokens of one request, as its upstream has counted them.",
    ),
    Known("headrace_series_dropped_total", Kind.COUNT, (), "Series for which there was no room in the shared memory."),
)
