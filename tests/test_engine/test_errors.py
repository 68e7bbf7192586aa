"""What can go wrong, sorted by whose fault it is."""

from __future__ import annotations

import pytest

from pipeline import ClientFault, DeadlineExceeded, Overloaded, PipelineError, StageBug, UpstreamFault
from pipeline.errors import blame, forget_places

KINDS: list[tuple[type[PipelineError], str, bool]] = [
    (ClientFault, "invalid_request", False),
    (UpstreamFault, "upstream_error", True),
    (Overloaded, "overloaded", True),
    (DeadlineExceeded, "deadline_exceeded", False),
    (StageBug, "internal_error", False),
]


@pytest.mark.parametrize(("kind", "code", "retryable"), KINDS)
def test_every_kind_has_a_code_and_states_whether_a_retry_may_help(
    kind: type[PipelineError], code: str, retryable: bool
) -> None:
    error = kind("the model did not answer")
    assert (error.code, error.retryable, error.public, str(error)) == (
        code,
        retryable,
        "the model did not answer",
        "the model did not answer",
    )
    assert (error.param, error.retry_after_s, error.status_hint, error.stage) == (None, None, None, None)


def test_an_error_has_what_the_gateway_needs_to_render_it() -> None:
    error = UpstreamFault("busy", code="upstream_rate_limited", param="model", retry_after_s=2.5, status_hint=429)
    assert (error.code, error.param, error.retry_after_s, error.status_hint) == (
        "upstream_rate_limited",
        "model",
        2.5,
        429,
    )
    assert UpstreamFault.code == "upstream_error"


def test_the_base_class_cannot_be_raised_because_it_blames_no_one() -> None:
    with pytest.raises(TypeError, match="whose fault"):
        PipelineError("something")


def test_a_pipeline_error_keeps_its_kind_and_gets_the_name_of_its_stage() -> None:
    error = ClientFault("no model")
    assert blame(error, "parse_request") is error
    assert error.stage == "parse_request"


def test_an_error_keeps_the_first_stage_that_was_blamed() -> None:
    error = ClientFault("no model")
    blame(error, "parse_request")
    blame(error, "parse_request+choose_deployment")
    assert error.stage == "parse_request"


def test_any_other_exception_is_a_bug_of_the_stage_and_its_text_is_not_shown() -> None:
    cause = ValueError("sk-secret and the user's prompt")
    bug = blame(cause, "shout")
    assert isinstance(bug, StageBug)
    assert bug.stage == "shout"
    assert bug.__cause__ is cause
    assert "secret" not in str(bug)
    assert "prompt" not in repr(bug)


def test_a_kept_error_forgets_where_it_and_what_led_to_it_were_raised() -> None:
    try:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("second") from OSError("cause")
        except ValueError as error:
            raise StageBug("third") from error
    except StageBug as error:
        bug = error
    second = bug.__cause__
    assert second is not None
    assert second.__context__ is not None
    second.__context__.__context__ = bug  # a circle
    assert None not in (bug.__traceback__, second.__traceback__, second.__context__.__traceback__)
    forget_places(bug)
    assert [bug.__traceback__, second.__traceback__, second.__context__.__traceback__] == [None] * 3
    assert isinstance(second.__cause__, OSError)
    forget_places(None)
