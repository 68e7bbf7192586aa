"""``token_command`` in the configuration: what it means, and what is wrong with one."""

from __future__ import annotations

import pytest
from kit.service.config_texts import model, only, parse, problems

from pipeline.gateway.config.describe import describe
from stages.upstreams.token import TokenCommand

CLAUDE = "model: bedrock/us.anthropic.claude-opus-5"


def test_a_command_is_split_into_words_without_a_shell() -> None:
    token = only(model(f"{{{CLAUDE}, token_command: \"get-token --for 'my app' $HOME; rm\"}}")).token
    assert token is not None
    assert token.command == TokenCommand(words=("get-token", "--for", "my app", "$HOME;", "rm"))
    assert (token.command.refresh_s, token.command.limit_s) == (1800, 30)


def test_a_command_may_be_a_list_with_variables_and_times_of_its_own() -> None:
    text = f"{{{CLAUDE}, token_command: [get, os.environ/A], token_refresh_s: 60, token_timeout_s: '5'}}"
    token = only(model(text), A="b c").token
    assert token is not None
    assert token.command == TokenCommand(words=("get", "b c"), refresh_s=60, limit_s=5)


def test_deployments_with_the_same_command_share_its_token() -> None:
    entry = "  - {{model_name: {}, litellm_params: {{model: openai/m, token_command: {}}}}}\n"
    found = parse(
        "model_list:\n" + entry.format("a", "get 1") + entry.format("b", "[get, '1']") + entry.format("c", "g")
    )
    one, other, third = (deployment.token for deployment in found.deployments)
    assert one is other
    assert one is not None
    assert third != one


def test_a_command_takes_the_place_of_the_providers_variable() -> None:
    deployment = only(model("{model: openai/m, token_command: get}"), OPENAI_API_KEY="sk-1")
    assert deployment.headers == ()
    assert only(model("{model: groq/m, token_command: get}")).headers == ()
    vertex = only(model("{model: vertex_ai/gemini-3-pro, vertex_project: p, token_command: gcloud auth x}"))
    assert vertex.headers == ()


def test_the_forms_of_a_deployment_have_the_same_token() -> None:
    deployment = only(model("{model: openai/m, api_base: 'http://h', token_command: get}"))
    assert deployment.on_chat is not None
    assert deployment.on_chat.token is deployment.token


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("'get \"x'", "token_command: has a quotation mark that is not closed: expected a command such as gcloud"),
        ("[]", "token_command: names no program"),
        ("{a: b}", "token_command: found a mapping, expected a command such as gcloud auth print-access-token"),
        ("get, api_key: k", "api_key: stands beside a token_command, which is the key: remove one of them"),
        ("get, token_refresh_s: 0", "token_refresh_s: found 0 (a number), expected seconds, more than 0, such as 60"),
    ],
)
def test_a_command_that_cannot_work_is_an_error(command: str, problem: str) -> None:
    (found,) = problems(model(f"{{{CLAUDE}, token_command: {command}}}"))
    assert problem in found


def test_the_program_is_shown_and_its_arguments_are_not() -> None:
    settings = parse(model(f"{{{CLAUDE}, token_command: /usr/bin/get-token --secret s3cret-4567}}"))
    shown = describe(settings) + repr(settings) + repr(settings.deployments[0].token)
    assert "(anthropic at bedrock-runtime.us-west-2.amazonaws.com, token by get-token)" in shown
    assert "s3cret" not in shown


def test_a_token_in_the_place_of_the_command_is_not_shown() -> None:
    settings = parse(model("{model: deepseek/m, token_command: sk-0123456789abcdef}"))
    assert "  m -> deepseek/m (chat at api.deepseek.com, token by [redacted])\n" in describe(settings)
    assert repr(settings.deployments[0].token) == "<Token of [redacted]>"
