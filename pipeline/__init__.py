"""The engine: pipelines of metered stages, linked by bounded channels, on trio. It knows no HTTP and no wire format.

This page is the whole public interface for authors of stages; `pipeline.testing` has the checks.

- ``stage``       the `Stage` and `Codec` protocols; `per_event` and `codec_stage`
- ``graph``       `Pipeline`: one nursery per request, one task per stage, first failure in time wins
- ``line``        how codec stages run, alone or joined in one task
- ``channel``     `Inlet` and `Outlet`: bounded, batch-carrying, metered
- ``alarm``       what wakes a task after a silence
- ``lane``        where the time of one task went, and what each of its stages did
- ``timeline``    when a request passed which point, and whose time it was
- ``loop``        what holds the loop
- ``kernel_time`` when bytes arrived, by the kernel
- ``context``     what the stages of one request share
- ``errors``      what can go wrong, sorted by whose fault it is
- ``outcome``     how a run ended
- ``host``        what a plugin gets for its lifetime
- ``registry``    stages from other distributions
- ``gateway``     the HTTP service built on it (never imported by the engine)
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
from pipeline.host import Host as Host
from pipeline.host import Observer as Observer
from pipeline.lane import Lane as Lane
from pipeline.outcome import Outcome as Outcome
from pipeline.registry import Plugin as Plugin
from pipeline.stage import Codec as Codec
from pipeline.stage import Stage as Stage
from pipeline.stage import WaitingCodec as WaitingCodec
from pipeline.stage import codec_stage as codec_stage
from pipeline.stage import per_event as per_event
from pipeline.timeline import Party as Party
