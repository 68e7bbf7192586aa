"""No credential is shown: not in a log line, not in an error before the stream, not in an error within it."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from kit.service.contexts import call, context, deployment
from msgspec import structs

from pipeline import RequestContext
from pipeline.gateway.logs import JsonFormatter
from pipeline.testing import collect
from stages.decode_events import decode_events
from stages.events import Failed
from stages.upstreams import UpstreamKind
from stages.upstreams.faults import fault_of_status
from stages.wire.redaction import (
    MAX_MESSAGE_CHARACTERS,
    REDACTED,
    message_to_show,
    redact,
    secrets_in,
)

# --- What is redacted, and where --------------------------------------------------------------------------------------

RANDOM = "aB3dE5fG7hJ9kL2mN4pQ6rS8tU0vW1xY3zA5"
HEX = "0123456789abcdef0123456789abcdef"
KINDS: Mapping[str, tuple[str, str]] = {
    # What it is: the text around it, and the credential.
    "OpenAI": ("{}", f"sk-{RANDOM}"),
    "OpenAI, of a project": ("{}", f"sk-proj-{RANDOM}-{RANDOM}"),
    "OpenAI, of a session": ("{}", f"sess-{RANDOM}"),
    "Anthropic": ("{}", f"sk-ant-api03-{RANDOM}-{RANDOM}AA"),
    "OpenRouter": ("{}", f"sk-or-v1-{HEX}{HEX}"),
    "LiteLLM's example": ("{}", "sk-1234"),
    "Langfuse": ("{}", f"pk-lf-{HEX}"),
    "xAI": ("{}", f"xai-{RANDOM}{RANDOM}"),
    "Groq": ("{}", f"gsk_{RANDOM}"),
    "Perplexity": ("{}", f"pplx-{RANDOM}"),
    "NVIDIA": ("{}", f"nvapi-{RANDOM}"),
    "Hugging Face": ("{}", "hf_aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"),
    "Replicate": ("{}", f"r8_{RANDOM}"),
    "Fireworks": ("{}", f"fw_{RANDOM[:24]}"),
    "Cerebras": ("{}", f"csk-{RANDOM}"),
    "Together": ("{}", f"tgp_v1_{RANDOM}"),
    "Databricks": ("{}", f"dapi{HEX}"),
    "ElevenLabs": ("{}", f"sk_{HEX}"),
    "Cursor": ("{}", f"key_{HEX}{HEX}"),
    "AWS": ("{}", "AKIAIOSFODNN7EXAMPLE"),
    "AWS, temporary": ("{}", "ASIAIOSFODNN7EXAMPLE"),
    "AWS, the secret one": ("aws_secret_access_key = {}", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    "Google": ("{}", f"AIzaSyA-{RANDOM[:31]}"),
    "Google, OAuth": ("{}", f"ya29.{RANDOM}-{RANDOM}"),
    "Google, in a URL": ("POST https://h/v1?key={}&alt=sse failed", RANDOM),
    "Azure": ("api-key: {}", HEX),
    "Azure, storage": ("AccountKey={};Endpoint=x", "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYg=="),
    "Azure, signed URL": ("https://h/c?sv=1&sig={}&x=1", "abcDEF%2B123%3D"),
    **{f"GitHub, gh{kind}_": ("{}", f"gh{kind}_{RANDOM}") for kind in "pousr"},
    "GitHub, fine-grained": ("{}", f"github_pat_11ABCDEFG0{RANDOM}_{RANDOM}"),
    "GitLab": ("{}", f"glpat-{RANDOM[:20]}"),
    **{f"Slack, xox{kind}-": ("{}", f"xox{kind}-123456789012-{RANDOM}") for kind in "abprs"},
    "npm": ("{}", f"npm_{RANDOM}"),
    **{f"Stripe, {kind}k_live_": ("{}", f"{kind}k_live_{RANDOM[:24]}") for kind in "spr"},
    "SendGrid": ("{}", f"SG.{RANDOM[:22]}.{RANDOM}"),
    "JSON Web Token": ("{}", f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.{RANDOM}"),
    "Bearer in its header": ("sent 'Authorization: Bearer {}' and failed", "plain-words-here"),
    "Bearer in lower case": ("got bearer {} here", f"{RANDOM}=="),
    "Basic in its header": ("Authorization: Basic {}", "dXNlcjpwYXNzd29yZA=="),
    "Basic": ("got Basic {}", "dXNlcjpwYXNzd29yZA=="),
    "another scheme in the header": ("Authorization: ApiKey {}", RANDOM),
    "x-api-key header": ("x-api-key: {}", RANDOM),
    "cookie": ("cookie: {}", f"a=1; session={RANDOM}"),
    "JSON": ('{{"api_key": "{}"}}', "correct horse battery"),
    "JSON with an escaped quote": ('{{"api_key": "{}"}}', r"correct\"horse battery"),
    "JSON in JSON": (r"{{\"password\": \"{}\"}}", "correct horse battery"),
    "a dict by repr": ("{{'x-api-key': '{}'}}", "plain-words-here"),
    "headers by repr": ("[(b'api-key', b'{}')]", "plain-words-here"),
    "api_key in a URL": ("GET /v1?api_key={}&x=1", "plainwords"),
    "token in a URL": ("GET /v1?token={}&x=1", "plainwords"),
    "password in a URL": ("https://user:{}@example.com/v1", "hunter22"),
    "password with a slash and an at sign in a URL": ("https://user:{}@example.com/v1", "hun/ter@22"),
    "token before a host": ("https://{}@example.com/v1", RANDOM),
    "variable": ("OPENAI_API_KEY={}", "plainwords"),
    "a name that seems to be a value": ("token=x-api-key: {}", RANDOM),
    "without a known form, after OpenAI's words": ("Incorrect API key provided: {}. Find yours", RANDOM),
    "private key": ("{}", "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKC\nabcd==\n-----END RSA PRIVATE KEY-----"),
    "private key without its end": ("{}", r"-----BEGIN PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabcd"),
    "masked by OpenAI": ("Incorrect API key provided: {}. Find yours", "sk-proj-********CRET"),
    "masked by LiteLLM": ("Received API Key = {}, Key Hash", "sk-...yzAB"),
    "masked with dots": ("bad {}, sorry", "hf_ab...yz"),
    "masked with bullets": ("bad {}, sorry", "••••••WXYZ"),
    "masked, of unknown form": ("your key {} is off", "********WXYZ"),
    "after a Chinese word": ("密钥{}无效", f"sk-{RANDOM}"),
    "after an escaped newline": (r"b'no\n{}'", f"sk-{RANDOM}"),
    "after an escaped quote": (r"\u0022{}\u0022", f"ghp_{RANDOM}"),
    "after an escaped space": ("a%20{}%20", f"sk-{RANDOM}"),
}


def logged(text: str) -> str:
    """Return the message of the log line that has ``text``."""
    record = logging.LogRecord("test", logging.ERROR, __file__, 1, "%s", (text,), None)
    return str(json.loads(JsonFormatter().format(record))["message"])


def refused(text: str, secrets: frozenset[str] = frozenset()) -> str:
    """Return what a client is shown of an error status with ``text``."""
    body = json.dumps({"error": {"message": text}}).encode()
    fault = fault_of_status(401, httpx.Headers(), body, "the upstream", secrets)
    return fault.public.removeprefix("upstream answered 401: ")


class Form(NamedTuple):
    """A way in which an answer reports its failure."""

    kind: UpstreamKind
    is_stream: bool
    report: Callable[[str, str], Any]
    """Returns the event or document, from a code and a message."""


def _error(code: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": code, "message": message}}


RESPONSES = Form("responses", True, _error)
FORMS = {
    "Responses, error": RESPONSES,
    "Responses, failed": Form(
        "responses",
        True,
        lambda code, message: {
            "type": "response.failed",
            "response": {"status": "failed", "error": {"code": code, "message": message}},
        },
    ),
    "Responses, document": Form(
        "responses",
        False,
        lambda code, message: {"object": "response", "status": "failed", "error": {"code": code, "message": message}},
    ),
    "Chat": Form("chat", True, lambda code, message: {"error": {"code": code, "message": message}}),
    "Chat, document": Form("chat", False, lambda code, message: {"error": {"code": code, "message": message}}),
    "Anthropic": Form("anthropic", True, _error),
    "Anthropic, document": Form("anthropic", False, _error),
}


def failure_in_answer(
    message: str, *, code: str = "server_error", headers: tuple[tuple[str, str], ...] = (), form: Form = RESPONSES
) -> Failed:
    """Return the failure that an answer becomes which reports ``code`` and ``message``."""

    def ctx() -> RequestContext:
        asked = structs.replace(call(), deployment=deployment(kind=form.kind, headers=headers))
        return context(upstream_call=asked, is_stream=form.is_stream)

    document = json.dumps(form.report(code, message)).encode()
    data = b"data: " + document + b"\n\n" if form.is_stream else document
    *_, failed = trio.run(partial(collect, decode_events, data, context=ctx))
    assert isinstance(failed, Failed)
    return failed


def streamed(text: str) -> str:
    """Return what a client is shown of a failure with ``text`` within a stream."""
    return failure_in_answer(text).message


SINKS = {"log": logged, "refusal": refused, "stream": streamed}


@pytest.mark.parametrize("show", SINKS.values(), ids=SINKS)
@pytest.mark.parametrize(("around", "secret"), KINDS.values(), ids=KINDS)
def test_a_credential_is_not_shown_and_what_is_around_it_is(
    around: str, secret: str, show: Callable[[str], str]
) -> None:
    shown = show(f"It failed: {around.format(secret)} (sorry)")
    assert REDACTED in shown
    for part in (secret, *(part for part in re.split(r"\W", secret) if len(part) > 5)):
        assert part not in shown
    assert shown.startswith("It failed: ")
    if "BEGIN PRIVATE" not in secret:  # its end is unknown
        assert shown.endswith(" (sorry)")
        before, after = around.format("\0").split("\0")
        assert before in shown or before.endswith(("://user:", "x-api-key: "))
        assert after in shown


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_form_of_a_failure_is_redacted_in_message_and_code(form: Form) -> None:
    key, own = f"glpat-{RANDOM}", "my-own-plain-SECRET-key"
    failed = failure_in_answer(f"bad {key} and {own}", code=own, headers=(("api-key", own),), form=form)
    assert failed.message == f"bad {REDACTED} and {REDACTED}"
    assert failed.upstream_code == REDACTED
    assert failure_in_answer("bad", code=key, form=form).upstream_code == REDACTED


ORDINARY = [
    "token limit exceeded",
    "max_tokens=10",
    "max_tokens: 4096",
    '{"max_tokens": 4096, "token": 128}',
    "next token = 50256",
    "token=10 of 4096",
    "Unexpected token: end of input",
    "Unexpected token < in JSON at position 0",
    "Invalid token: expected ')'",
    "This model's maximum context length is 128000 tokens: you requested 130000",
    "request id req_011CSHoEeqs5C35K2UUqR7Fy",
    "request id: req_8f3b2c1d9e7a4b5c6d7e8f9a0b1c2d3e",
    "call_abcdefghijklmnopqrstuvwx",
    "resp_0123456789abcdef0123456789abcdef",
    "msg_01XFDUDYJgAACzvnptvVoYEL",
    "toolu_01A09q90qw90lq917835lq9",
    "chatcmpl-9fKqLw3xYzABCDEFGH",
    "fc_68a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5",
    "gpt-5.4",
    "The model `gpt-5.4-mini-2026-03-17` does not exist",
    "model 'gpt-5-basic' at the org-123 level",
    "claude-sonnet-4-5-20250929",
    "accounts/fireworks/models/qwen3-coder-480b",
    "xai-grok-code-fast-1, pplx-70b-online",
    "hf_hub_download of hf_transformers, npm_config_registry",
    "risk-free",
    "task-1234567890, desk-1234567890, flask-app-2000",
    "Your risk-based task-list is sk",
    "sk-SK",
    "/home/user/task-force/sk.txt",
    r"C:\temp\new-task-123",
    "tests/test_wire/test_redaction.py:12",
    "5a1c0b7e-4c9f-4b57-9d5e-2b3c4d5e6f70",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "https://api.example.com:8443/v1/responses?api-version=2025-04-01",
    "http://localhost:4873/@scope/pkg",
    "user@example.com, git@github.com:org/repo.git",
    "You need to provide your API key in an Authorization header using Bearer auth",
    "Missing bearer or basic authentication in header",
    "bearer token is missing, basic authentication is required",
    "basic gpt-5 plan, Basic 2024 plan, basic-auth",
    "Authorization: header is missing",
    "Cookie: consent is required",
    "api_key: field required",
    "password: must be at least 8 characters",
    "private key: not found",
    "api_key=None, base_url=None",
    "write api_key: os.environ/OPENAI_API_KEY",
    "anthropic-version: header is required",
    "signature: Invalid signature in thinking block",
    "prompt_cache_key: string too long",
    "must be one of 'token', 'secret', 'none'",
    "stages=[('authenticate', 12), ('token_counter', 13)]",
    "time_to_first_token: 12.5 ms",
    "*** Begin Patch",
    "**bold** text and a *** rule",
    "Limit 30000, used 29000. Please try again in 1.2s. See https://platform.openai.com/account/api-keys.",
    "sessions-1234, rk-something, pk-column, gh_pages, ghost_writer_12345678",
    "ASIAN languages, AKIA, eyJ, dapi",
    "",
]


@pytest.mark.parametrize("show", SINKS.values(), ids=SINKS)
def test_ordinary_words_ids_and_names_are_left_alone(show: Callable[[str], str]) -> None:
    for text in filter(None, ORDINARY):
        assert show(text) == text
    assert redact("") == message_to_show("") == ""


# Within a word there is no telling: "task-1234567890" is not a key.
_apart = st.text(max_size=30).map(lambda text: f"{text} "), st.text(max_size=30).map(lambda text: f" {text}")
_by_prefix = [secret for around, secret in KINDS.values() if around == "{}"]


@given(_apart[0], st.sampled_from(_by_prefix), _apart[1])
def test_a_key_with_a_known_prefix_never_survives_in_any_text(before: str, secret: str, after: str) -> None:
    text = f"{before}{secret}{after}"
    for shown in (redact(text), message_to_show(text)):
        assert secret not in shown
        assert " ".join(secret.split()) not in shown


_header = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40)


@given(st.text(max_size=30), _header, st.text(max_size=30), st.sampled_from(["", "Bearer "]))
def test_a_deployments_own_secret_never_survives_in_any_text(before: str, secret: str, after: str, scheme: str) -> None:
    text = f"{before}{secret}{after}"
    headers = (("x-key", f"{scheme}{secret}"),)
    for shown in (
        redact(text, secrets_in(headers)),
        message_to_show(text, secrets_in(headers)),
        message_to_show(message_to_show(text), secrets_in(headers)),  # as the decoders and their stage do it
    ):
        assert secret not in shown or secret in REDACTED


@given(st.text(max_size=60))
def test_what_is_ready_to_show_stays_as_it_is(text: str) -> None:
    shown = message_to_show(text)
    assert message_to_show(shown) == shown


# --- A deployment's own secrets ---------------------------------------------------------------------------------------


def test_the_values_of_a_deployments_headers_are_secret_with_and_without_their_scheme() -> None:
    headers = (("authorization", "Bearer my-own/key"), ("x-team", "blue-team"), ("x-flag", "true"))
    secrets = secrets_in(headers)
    for secret in ("Bearer my-own/key", "my-own/key", "my-own%2Fkey", "blue-team"):
        assert secret in secrets
        assert redact(f"a {secret}.", secrets) == f"a {REDACTED}."
    assert "true" not in secrets


def test_headers_that_hold_no_credential_can_be_named() -> None:
    headers = (("Anthropic-Version", "2023-06-01"), ("anthropic-beta", "tools-2026"), ("Content-Type", "text/plain"))
    assert secrets_in(headers) == frozenset()


def test_a_secret_that_holds_a_known_key_is_removed_whole_after_the_key_was() -> None:
    secret = f"tenant-one/ghp_{RANDOM}/tail-of-it"
    assert redact(redact(f"no {secret}."), secrets_in([("x-key", secret)])) == f"no {REDACTED}."


# --- Where a message is clipped ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown_again", [False, True])
@pytest.mark.parametrize("secret", [f"glpat-{RANDOM}", f"Bearer {RANDOM}", "my-own-plain-SECRET-key"])
def test_no_part_of_a_key_is_left_where_a_message_is_clipped(secret: str, shown_again: bool) -> None:
    is_known = secret.startswith("glpat-")  # by its form alone
    own = frozenset[str]() if is_known else secrets_in([("x-key", secret)])
    credential = secret.removeprefix("Bearer ")
    for at in (MAX_MESSAGE_CHARACTERS, 8 * MAX_MESSAGE_CHARACTERS):
        for offset in range(-len(secret) - 2, 3):
            for filler in ("x-", "y ", f"ghp_{HEX * 4} "):  # the last shrinks to a twelfth
                text = filler * ((at + offset - 1) // len(filler))
                text = text.ljust(at + offset - 1, "x") + f" {secret}" + " and more" * MAX_MESSAGE_CHARACTERS
                shown = message_to_show(message_to_show(text), own) if shown_again else message_to_show(text, own)
                assert len(shown) <= MAX_MESSAGE_CHARACTERS + len(REDACTED)
                for part in (credential[start : start + 5] for start in range(len(credential) - 5)):
                    assert part not in shown


def test_a_message_is_on_one_line_and_clipped() -> None:
    assert message_to_show("  a\n\tb \u2028 c ") == "a b c"
    assert message_to_show("x" * 2000) == "x" * 2000
    for length in (2001, 10_000, 100_000):
        assert message_to_show("x" * length) == "x" * 1999 + "…"
    assert message_to_show("word " * 100_000) == ("word " * 400)[:1999] + "…"


# --- Time -------------------------------------------------------------------------------------------------------------

_HINTS = " sk- key token secret passw authorization cookie bearer basic :// private key *** key= "
_PATHOLOGICAL = [
    *(
        "a",
        "0",
        " ",
        "-",
        "_",
        "*",
        "•",
        '"',
        "\\",
        '\\"',
        "&",
        "@",
        "://",
        "://a:",
        "a.",
        "a-",
        "sk-",
        "sk_",
        "hf_a",
        "AKIA",
    ),
    *(
        "eyJ-",
        "SG.a",
        "ya29..",
        "a***",
        "token=",
        'token: "',
        "token=aaaa : ",
        "api_key ",
        "api key provided ",
        "Bearer ",
    ),
    *("Basic A", "cookie: a=b;", "authorization: bearer ", "?key=", "-----BEGIN PRIVATE KEY-----a-", "[b'api-key', '"),
]


def _took_s(text: str) -> float:
    start = time.perf_counter()
    redact(text)
    return time.perf_counter() - start


def test_redaction_takes_linear_time_for_any_text() -> None:
    def long(piece: str) -> str:
        return (piece * 100_000)[:100_000] + _HINTS

    usual_s = max(_took_s(long("The quick brown fox jumps over the lazy dog. ")) for _ in range(3))
    for piece in _PATHOLOGICAL:
        # 6 times at most was measured; 140 times for a pattern that was quadratic.
        assert _took_s(long(piece)) < 50 * usual_s, piece
