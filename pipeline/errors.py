"""What can go wrong with a request, sorted by whose fault it is.

A `PipelineError` is the only kind of exception that leaves a pipeline. Its text is shown to the client, so it
never holds a secret, prompt text or words of a foreign exception: those belong in ``__cause__``.
"""

from __future__ import annotations

from traceback import extract_tb
from typing import ClassVar


class PipelineError(Exception):
    """The abstract base of every failure that a request can end with.

    Args:
        public: what happened, to what, and what to do; safe to show to the client.
        code: one of a bounded set of words (it is a metric label); by default the word of the class.
        param: the request field to blame, as ``input[3].role``.
        retry_after_s: how long the client should wait before it tries again, in seconds.
        status_hint: the HTTP status of the upstream's answer, if there is one. Policy is the gateway's.
        upstream_code: the upstream's own code of the failure, if it has one, redacted.
    """

    code: str = "pipeline_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        public: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        status_hint: int | None = None,
        upstream_code: str | None = None,
    ) -> None:
        if type(self) is PipelineError:
            raise TypeError("raise one of the subclasses: they say whose fault it is")
        super().__init__(public)
        self.public = public
        if code is not None:
            self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.status_hint = status_hint
        self.upstream_code = upstream_code
        self.stage: str | None = None
        """Where it happened; the pipeline fills it in."""


class ClientFault(PipelineError):
    """The caller sent something that we cannot or may not serve."""

    code = "invalid_request"


class UpstreamFault(PipelineError):
    """The upstream refused, broke its protocol, or went silent."""

    code = "upstream_error"
    retryable = True


class Overloaded(PipelineError):
    """We shed this request on purpose: there is no room for it now."""

    code = "overloaded"
    retryable = True


class DeadlineExceeded(PipelineError):
    """The request's own time budget ran out."""

    code = "deadline_exceeded"


class StageBug(PipelineError):
    """A stage raised something that it does not declare: our mistake, with the cause in ``__cause__``."""

    code = "internal_error"


def blame(error: Exception, stage: str) -> PipelineError:
    """Return ``error`` as the failure of ``stage``: itself if it says whose fault it is, else a `StageBug`.

    The first stage to be blamed stays blamed, so an error may be passed through here more than once.
    """
    if not isinstance(error, PipelineError):
        bug = StageBug("something went wrong inside the gateway; the operator's log has the details")
        bug.__cause__ = error
        error = bug
    error.stage = error.stage or stage
    return error


def forget_places(error: BaseException | None) -> None:
    """Drop the tracebacks of an exception and of what led to it.

    Their frames hold whatever the request was made of, such as its body. Whoever keeps an exception does this first.
    """
    left, seen = [error], set[int]()
    while left:
        if (one := left.pop()) is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            left += (one.__cause__, one.__context__)


def places_of(error: BaseException | None) -> str:
    """Return types and places of an exception and of what led to it, the last first, for a log.

    Never their texts: they may quote a prompt or a key.
    """
    lines: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        places = extract_tb(error.__traceback__)
        lines.append(f"{type(error).__module__}.{type(error).__qualname__}{' at' if places else ''}")
        lines += (f"  {place.filename}:{place.lineno} in {place.name}" for place in places)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(lines)
