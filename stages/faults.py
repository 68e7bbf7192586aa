"""The two forms of an upstream's failure: raised before the answer begins, an event in its place afterwards."""

from __future__ import annotations

from pipeline import PipelineError, UpstreamFault
from stages.events import Failed


def failed_from(fault: PipelineError) -> Failed:
    """Give a raised fault as the last event of a stream, so that it cannot overtake what came before it."""
    return Failed(code=fault.code, message=fault.public, retry_after_s=fault.retry_after_s)


def fault_from(failed: Failed) -> UpstreamFault:
    """Give a stream's failure as an error to raise, for a stream that had given nothing else."""
    return UpstreamFault(failed.message, code=failed.code, retry_after_s=failed.retry_after_s)
