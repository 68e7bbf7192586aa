"""The engine: pipelines of metered stages, linked by bounded channels, on trio. It knows no HTTP and no wire format.

This page is the whole public interface for authors of stages; `pipeline.testing` has the checks.

- ``stage``    the `Stage` and `Codec` protocols; `per_event`, `codec_stage` and their kin; `fuse`
- ``channel``  `Inlet` and `Outlet`: bounded, batch-carrying, metered
- ``graph``    `Pipeline`: one nursery per request, one task per stage, first failure in time wins
- ``alarm``    what wakes a task after a silence
- ``meter``    where a stage's time went: starved, busy, outside, blocked, closing
- ``context``  what the stages of one request share
- ``errors``   what can go wrong, sorted by whose fault it is
- ``registry`` stages from other distributions
- ``gateway``  the HTTP service built on it (never imported by the engine)
"""

from pipeline.channel import DownstreamGone as DownstreamGone
from pipeline.channel import Inlet as Inlet
from pipeline.channel import Outlet as Outlet
from pipeline.context import RequestContext as RequestContext
from pipeline.context import Slot as Slot
from pipeline.errors import ClientFault as ClientFault
from pipeline.errors import DeadlineExceeded as DeadlineExceeded
from pipeline.errors import Overloaded as Overloaded
from pipeline.errors import PipelineError as PipelineError
from pipeline.errors import StageBug as StageBug
from pipeline.errors import UpstreamFault as UpstreamFault
from pipeline.graph import Pipeline as Pipeline
from pipeline.meter import Doing as Doing
from pipeline.meter import Meter as Meter
from pipeline.registry import Plugin as Plugin
from pipeline.stage import AsyncCodec as AsyncCodec
from pipeline.stage import Codec as Codec
from pipeline.stage import CodecStage as CodecStage
from pipeline.stage import Stage as Stage
from pipeline.stage import TickingCodec as TickingCodec
from pipeline.stage import async_codec_stage as async_codec_stage
from pipeline.stage import codec_stage as codec_stage
from pipeline.stage import fuse as fuse
from pipeline.stage import per_event as per_event
from pipeline.stage import ticking_stage as ticking_stage
