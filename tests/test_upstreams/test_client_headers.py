"""Which of a client's headers go on to an upstream of its own."""

from __future__ import annotations

from pipeline.gateway.config.settings import Settings
from stages.request import ResponsesRequest
from stages.upstreams import Deployment, UpstreamCall
from stages.upstreams.apis import APIS
from stages.upstreams.client_headers import passed_on

KEY = "sk-clients-own-0123456789"
HEADERS = (
    (b"host", b"127.0.0.1:4000"),
    (b"authorization", f"Bearer {KEY}".encode()),
    (b"content-type", b"application/json; charset=utf-8"),
    (b"content-length", b"5"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip"),
    (b"connection", b"keep-alive, X-Hop"),
    (b"keep-alive", b"timeout=5"),
    (b"x-hop", b"1"),
    (b"te", b"trailers"),
    (b"expect", b"100-continue"),
    (b"cookie", b"session=1"),
    (b"proxy-authorization", b"Basic x"),
    (b"x-title", b"mine"),
)


def test_headers_of_one_connection_and_of_the_body_stay_here() -> None:
    assert dict(passed_on(HEADERS, APIS["chat"])) == {
        b"authorization": f"Bearer {KEY}".encode(),
        b"accept": b"*/*",
        b"x-title": b"mine",
    }


def test_a_body_that_is_sent_on_as_it_is_keeps_its_description() -> None:
    described = dict(passed_on(HEADERS, APIS["chat"], is_raw=True))
    assert described.keys() == {b"authorization", b"accept", b"x-title", b"content-type", b"accept-encoding"}


def test_a_header_that_is_repeated_stays_so() -> None:
    sent = ((b"openai-beta", b"a"), (b"x-title", b"mine"), (b"openai-beta", b"b"))
    connections = ((b"connection", b"X-Hop"), (b"connection", b"keep-alive"))
    assert passed_on((*connections, *sent, (b"x-hop", b"1")), APIS["chat"]) == sent


def test_the_key_goes_where_messages_want_it() -> None:
    def sent(value: bytes) -> dict[bytes, bytes]:
        return dict(passed_on([(b"authorization", value)], APIS["anthropic"]))

    assert sent(b"Bearer sk-ant-api03-x") == {b"x-api-key": b"sk-ant-api03-x"}
    assert sent(b"bearer local") == {b"authorization": b"bearer local", b"x-api-key": b"local"}
    assert sent(b"Bearer sk-ant-oat01-x") == {b"authorization": b"Bearer sk-ant-oat01-x"}
    assert sent(b"Basic x") == {b"authorization": b"Basic x"}
    own = ((b"authorization", b"Bearer a"), (b"x-api-key", b"b"))
    assert passed_on(own, APIS["anthropic"]) == own


def test_a_call_does_not_show_the_key_and_knows_what_must_not_be_shown() -> None:
    deployment = Deployment(
        id="own", model_name="*", model="*", provider="openai", kind="chat", url="http://localhost/v1/chat/completions"
    )
    request = ResponsesRequest(
        requested_model="m", stream=False, include_usage=False, body={"input": "a secret prompt"}
    )
    call = UpstreamCall(
        request=request, deployment=deployment, model="m", client_headers=passed_on(HEADERS, APIS["chat"])
    )
    assert repr(call) == "<UpstreamCall of m to own>"
    assert KEY in call.client_secrets
    assert "mine" not in call.client_secrets
    assert call.at(deployment).client_headers == ()


def test_only_code_can_make_a_deployment_transparent() -> None:
    assert not Settings(deployments=()).is_transparent
