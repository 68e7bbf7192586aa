"""The models that ``headrace doctor`` asks for: the embedded upstream answers at times that the doctor knows.

``headrace-doctor:first=75s;tokens=3`` has the script of ``canned/timed`` (`stages.upstreams.canned.timing`) in its
name. These models exist in every configuration, for the master key alone: nothing lists them, they cost nothing, and
what routing knows of the configured deployments does not change.
"""

from __future__ import annotations

from typing import Final

from stages.upstreams import Deployment
from stages.upstreams.canned.timing import SCRIPT, parse_timing

PROBE: Final = "headrace-doctor"
"""The name before the colon, and the id of the deployment in logs and metrics."""
MAX_PROBE_S: Final = 600.0
MAX_PROBE_TOKENS: Final = 1000
MAX_PROBE_BYTES: Final = 64 * 1024


def is_probe(model: str) -> bool:
    """Return whether a name is that of such a model."""
    return model.partition(":")[0] == PROBE


def probe_deployment(model: str) -> Deployment:
    """Return the deployment of such a model.

    Raises:
        ValueError: if its script is not valid, or it would take too long; the message is a sentence.
    """
    script = f"{SCRIPT}:{model.partition(':')[2]}"
    timing = parse_timing(script)
    if timing.whole_s > MAX_PROBE_S:
        raise ValueError(f"the answer would take {timing.whole_s:g} s: write at most {MAX_PROBE_S:g} s")
    if timing.tokens > MAX_PROBE_TOKENS or timing.tokens * timing.token_bytes > MAX_PROBE_BYTES:
        raise ValueError(
            f"the answer would be too long: write at most {MAX_PROBE_TOKENS} tokens and {MAX_PROBE_BYTES} bytes"
        )
    return Deployment(id=PROBE, model_name=model, model=script, provider="canned", kind="canned", url="")
