"""The families as OpenTelemetry's data: all of them under their names, and the calls upstream under GenAI's.

Source: OpenTelemetry's semantic conventions for GenAI clients (2026-08, "Development"), which name the metrics of a
program that calls a model. Their names for servers are those of the model's own server, and not ours to use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, assert_never

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

from pipeline.gateway.metrics.buckets import GEN_AI_SECONDS, SECONDS, SIZES, BucketLimits
from pipeline.series import Family, Kind, Series
from stages.upstreams import Deployment

Attributes = dict[str, str]
Describe = Callable[[Attributes], Attributes]
"""Takes the labels of a series, and returns the attributes that it has in OpenTelemetry."""

_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
_SECONDS_UNIT: Final = "s"
_PROVIDERS: Final = {
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "codestral": "mistral_ai",
    "xai": "x_ai",
}
"""GenAI's names of providers, where they are not LiteLLM's."""
_TOKEN_TYPES: Final = {"prompt": "input", "completion": "output"}
_CHAT: Final = {"gen_ai.operation.name": "chat"}


class _GenAi(NamedTuple):
    """One of GenAI's metrics, and the family that it is made of."""

    name: str
    family: str
    limits: BucketLimits
    unit: str
    about: str


_GEN_AI: Final = (
    _GenAi(
        "gen_ai.client.operation.duration",
        "headrace_upstream_seconds",
        GEN_AI_SECONDS,
        _SECONDS_UNIT,
        "GenAI operation duration.",
    ),
    _GenAi(
        "gen_ai.client.operation.time_to_first_chunk",
        "headrace_upstream_first_token_seconds",
        GEN_AI_SECONDS,
        _SECONDS_UNIT,
        "Time to receive the first chunk, measured from when the client issues the generation request.",
    ),
    _GenAi(
        "gen_ai.client.operation.time_per_output_chunk",
        "headrace_chunk_gap_seconds",
        GEN_AI_SECONDS,
        _SECONDS_UNIT,
        "Time per output chunk, after the first one.",
    ),
    _GenAi(
        "gen_ai.client.token.usage",
        "headrace_request_tokens",
        SIZES,
        "{token}",
        "Number of input and output tokens used.",
    ),
)


class Converter:
    """Makes metrics of families.

    Args:
        deployments: as they are configured, to know their providers and models.
        began_ns: since when everything is counted, as Unix time.
    """

    def __init__(self, deployments: Iterable[Deployment], began_ns: int) -> None:
        self._deployments = {one.id: one for one in deployments}
        self._began_ns = began_ns

    def metrics(self, families: Mapping[str, Family], now_ns: int) -> list[Metric]:
        """Return all metrics as of now."""
        found = [self._metric(family, now_ns) for _, family in sorted(families.items()) if family.series]
        for one in _GEN_AI:
            if (family := families.get(one.family)) is not None:
                series = [each for each in family.series if ("side", "client") not in each.labels]
                points = self._histograms(series, one.limits, now_ns, self._describe_call)
                found.append(Metric(one.name, one.about, one.unit, Histogram(points, _CUMULATIVE)))
        return found

    def _metric(self, family: Family, now_ns: int) -> Metric:
        data: Sum | Gauge | Histogram
        match family.kind:
            case Kind.COUNT | Kind.SECONDS | Kind.AMOUNT:
                data = Sum(self._numbers(family, now_ns), _CUMULATIVE, is_monotonic=True)
            case Kind.GAUGE:
                data = Gauge(self._numbers(family, now_ns))
            case Kind.DURATIONS:
                data = Histogram(self._histograms(family.series, SECONDS, now_ns), _CUMULATIVE)
            case Kind.SIZES:
                data = Histogram(self._histograms(family.series, SIZES, now_ns), _CUMULATIVE)
            case Kind.BUCKETS:
                data = Histogram([self._cut(one, now_ns) for one in family.series], _CUMULATIVE)
            case _:
                assert_never(family.kind)
        return Metric(family.name, family.about, _unit_of(family), data)

    def _numbers(self, family: Family, now_ns: int) -> list[NumberDataPoint]:
        return [NumberDataPoint(dict(one.labels), self._began_ns, now_ns, one.value) for one in family.series]

    def _histograms(
        self, series: Iterable[Series], limits: BucketLimits, now_ns: int, describe: Describe = lambda labels: labels
    ) -> list[HistogramDataPoint]:
        return [
            self._histogram(describe(dict(one.labels)), one.value, limits.counts(one.slots), limits.limits, now_ns)
            for one in series
        ]

    def _cut(self, one: Series, now_ns: int) -> HistogramDataPoint:
        counts = [count for _, count in one.buckets]
        return self._histogram(dict(one.labels), one.value, counts, [limit for limit, _ in one.buckets[:-1]], now_ns)

    def _histogram(
        self, attributes: Attributes, total: float, counts: list[int], limits: Iterable[float], now_ns: int
    ) -> HistogramDataPoint:
        unknown: Any = None  # optional in the protocol, but not in the type
        return HistogramDataPoint(
            attributes=attributes,
            start_time_unix_nano=self._began_ns,
            time_unix_nano=now_ns,
            count=sum(counts),
            sum=total,
            bucket_counts=counts,
            explicit_bounds=list(limits),
            min=unknown,
            max=unknown,
        )

    def _describe_call(self, labels: Attributes) -> Attributes:
        """Return GenAI's attributes; a deployment that a reload has brought is known by its id only."""
        attributes = dict(_CHAT)
        if name := labels.get("deployment"):
            attributes["headrace.deployment"] = name
            if (deployment := self._deployments.get(name)) is not None:
                attributes["gen_ai.provider.name"] = _PROVIDERS.get(deployment.provider, deployment.provider)
                if "*" not in deployment.model:
                    attributes["gen_ai.request.model"] = deployment.model
        if (end := labels.get("end", "OK")) != "OK":
            attributes["error.type"] = end
        if (direction := labels.get("direction")) is not None:
            attributes["gen_ai.token.type"] = _TOKEN_TYPES[direction]
        return attributes


def _unit_of(family: Family) -> str:
    """Return the unit in UCUM, which the name of a family says."""
    words = family.name.removesuffix("_total").rsplit("_", 1)
    return {"seconds": _SECONDS_UNIT, "bytes": "By"}.get(words[-1], "1")
