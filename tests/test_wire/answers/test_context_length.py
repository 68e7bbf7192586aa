"""Which errors say that the conversation is too long, and OpenAI's sentence for each of them."""

from __future__ import annotations

import pytest

from stages.wire.answers.context_length import FORMS, NO_NUMBERS, beginning_with, sentence_on_length


def resulted_in(used: int, limit: int) -> str:
    return (
        f"This model's maximum context length is {limit} tokens. However, your messages resulted in {used} tokens. "
        "Please reduce the length of the messages."
    )


def requested(in_messages: int, output: int, limit: int) -> str:
    return (
        f"This model's maximum context length is {limit} tokens. However, you requested {in_messages + output} tokens "
        f"({in_messages} in the messages, {output} in the completion). "
        "Please reduce the length of the messages or completion."
    )


TEXTS = {
    "Your input exceeds the context window of this model. Please adjust your input and try again.": NO_NUMBERS,
    "This model's maximum context length is 4097 tokens. However, your messages resulted in 4294 tokens. Please reduce "
    "the length of the messages.": resulted_in(4294, 4097),
    "This model's maximum context length is 8191 tokens, however you requested 10346 tokens (10346 in your prompt; 5 "
    "for the completion). Please reduce your prompt; or completion length.": requested(10341, 5, 8191),
    "This model's maximum context length is 65536 tokens. However, you requested 69648 tokens (69648 in the messages, "
    "0 in the completion). Please reduce the length of the messages or completion.": resulted_in(69648, 65536),
    "This model's maximum context length is 65536 tokens. However, you requested 69648 tokens (61456 in the messages, "
    "8192 in the completion).": requested(61456, 8192, 65536),
    "'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 32768 tokens "
    "and your request has 30000 input tokens (8192 > 32768 - 30000).": requested(30000, 8192, 32768),
    "This model's maximum context length is 4096 tokens. However, you requested 1000 output tokens and your prompt "
    "contains at least 3097 input tokens, for a total of at least 4097 tokens.": requested(3097, 1000, 4096),
    "You passed 131073 input tokens and requested 0 output tokens. However, the model's context length is only 131072 "
    "tokens, resulting in a maximum input length of 131072 tokens. Please reduce the length of the input prompt. "
    "(parameter=input_tokens, value=131073)": resulted_in(131073, 131072),
    "You passed 30000 input tokens and requested 8192 output tokens. However, the model's context length is only 32768 "
    "tokens": requested(30000, 8192, 32768),
    "You passed 999999 input characters and requested 16 output tokens. However, the model's context length is only "
    "32768 tokens, resulting in a maximum input length of 32752 tokens (at most 524032 characters).": NO_NUMBERS,
    "The decoder prompt (length 12324) is longer than the maximum model length of 8192. Make sure that "
    "`max_model_len` fits.": resulted_in(12324, 8192),
    "Context size has been exceeded.": NO_NUMBERS,
    "This endpoint's maximum context length is 131072 tokens. However, you requested about 195847 tokens (180000 of "
    "text input, 5847 of tool input, 10000 in the output). Please reduce the length of either one.": requested(
        185847, 10000, 131072
    ),
    "This model's maximum context length is 32,768 tokens and that is it": NO_NUMBERS,
    "prompt is too long: 208310 tokens > 200000 maximum": resulted_in(208310, 200000),
    "The prompt is too long: 131073, model maximum context length: 131071": resulted_in(131073, 131071),
    "Prompt is too long": NO_NUMBERS,
    "The sum of the prompt tokens and max_tokens (140000) exceeds the model's context window of 128000": NO_NUMBERS,
    "prompt (120000) + `max_tokens` (20000) exceeds the context window": NO_NUMBERS,
    "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000, decrease input length or `max_tokens` "
    "and try again": requested(199759, 8192, 200000),
    "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).": resulted_in(
        1196265, 1048575
    ),
    "The input token count exceeds the maximum number of tokens allowed 1048576": NO_NUMBERS,
    "Unable to submit request because the input token count is 2000000 but model only supports up to 1048576.": (
        resulted_in(2000000, 1048576)
    ),
    "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length": (
        resulted_in(40000, 32768)
    ),
    "prompt tokens (300,000) exceed model maximum (262,144)": resulted_in(300000, 262144),
    "Input is too long for requested model.": NO_NUMBERS,
    "Requested token count exceeds the model's maximum context length of 131072 tokens. You requested a total of "
    "139297 tokens: 131105 tokens from the input messages and 8192 tokens for the completion.": requested(
        131105, 8192, 131072
    ),
    "The input (1492905 tokens) is longer than the\n model's context length (1048576 tokens).": resulted_in(
        1492905, 1048576
    ),
    "input too long: 250000 input tokens, limit is 200000": resulted_in(250000, 200000),
    "number of input tokens (210000) has exceeded max_prompt_tokens (200000) limit": resulted_in(210000, 200000),
    "Prompt exceeds max length": NO_NUMBERS,
    "prompt token count of 140000 exceeds the limit of 128000": resulted_in(140000, 128000),
    "This model's maximum prompt length is 131072 but the request contains 537812 tokens.": resulted_in(537812, 131072),
    "Invalid request: Your request exceeded model token limit: 262144 (requested: 291351)": resulted_in(291351, 262144),
    "invalid params, context window exceeds limit (2013)": NO_NUMBERS,
    "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]": NO_NUMBERS,
    "request (13392 tokens) exceeds the available context size (8192 tokens), try increasing it": resulted_in(
        13392, 8192
    ),
    "the request exceeds the available context size. try increasing the context size": NO_NUMBERS,
    "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length "
    "of only 4096 tokens": NO_NUMBERS,
    "prompt too long; exceeded max context length by 2 tokens": NO_NUMBERS,
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 1 "
    "`max_new_tokens`": requested(5000, 1, 4096),
    "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000": resulted_in(5000, 4096),
    "Invalid request: Input token length too long": NO_NUMBERS,
    "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292.": resulted_in(
        4292, 4081
    ),
    "Please reduce the length of the messages or completion. Current length is 8193 while limit is 8192": resulted_in(
        8193, 8192
    ),
    "Your request exceeds the maximum allowed input length of 65536 tokens": NO_NUMBERS,
    "litellm.ContextWindowExceededError: no more": NO_NUMBERS,
}


@pytest.mark.parametrize(("text", "sentence"), TEXTS.items(), ids=range(len(TEXTS)))
def test_a_vendors_text_gets_openais_sentence(text: str, sentence: str) -> None:
    assert sentence_on_length(text) == sentence
    assert sentence_on_length(f"wrapped: {text}", "invalid_request_error") == sentence


def test_each_form_is_tested() -> None:
    for number, form in enumerate(FORMS):
        assert any(
            form.pattern.search(text) and not any(earlier.pattern.search(text) for earlier in FORMS[:number])
            for text in map(" ".join, map(str.split, TEXTS))
        ), form.vendor


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("Invalid type for 'messages[0].content'.", ("invalid_type",)),
        # The output that was asked for: no chat is short enough.
        ("max_tokens is too large: 50000. This model supports at most 16384 completion tokens.", ("invalid_value",)),
        ("max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens for claude", ()),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", ()),
        ("Range of max_tokens should be [1, 8192]", ()),
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 40000. This model's maximum context length is 32768 "
            "tokens and your request has 10 input tokens (40000 > 32768 - 10).",
            (),
        ),
        ("input length and `max_tokens` exceed context limit: 10 + 250000 > 200000, decrease", ()),
        ("max_tokens (300000) exceeds the model's context window of 128000", ()),
        ("bad request: `max_completion_tokens` of 300000 exceeds this model's context window", ()),
        # What a plan or a key allows.
        ("Your plan's maximum context length is 8000 tokens", ("", "401")),
        ("Your key's maximum context length is 8000 tokens", ("Permission_Error",)),
        # The rate of tokens.
        ("Request too large for gpt-5 on tokens per min (TPM): Limit 30000, Requested 51000.", ("tokens",)),
        ("This request would exceed your organization's rate limit of 30,000 input tokens per minute.", ()),
        ("Too many tokens, please wait before trying again: prompt is too long, per day", ()),
        ("prompt is too long", ("rate_limit_exceeded",)),
        ("ThrottlingException: prompt is too long", ()),
        ("You exceeded your current quota: context window exceeds limit", ("insufficient_quota",)),
        ("Invalid 'input[3].call_id': string too long.", ("string_above_max_length",)),
    ],
)
def test_other_errors_about_length_and_tokens_are_different(text: str, words: tuple[str, ...]) -> None:
    assert sentence_on_length(text, *words) is None


@pytest.mark.parametrize(
    "word",
    [
        "context_length_exceeded",
        "model_max_prompt_tokens_exceeded",
        "exceed_context_size_error",
        "Context_Window_Exceeded",
    ],
)
def test_a_code_is_enough_whatever_the_text(word: str) -> None:
    assert sentence_on_length("", word) == NO_NUMBERS
    assert sentence_on_length("rate limit", "", word) == NO_NUMBERS
    assert sentence_on_length("prompt is too long: 9 tokens > 5 maximum", word) == resulted_in(9, 5)


def test_numbers_that_contradict_are_not_repeated() -> None:
    assert sentence_on_length("prompt is too long: 5 tokens > 9 maximum") == NO_NUMBERS


def test_only_the_start_of_a_text_is_examined() -> None:
    assert sentence_on_length("x" * 4000 + " prompt is too long") is None


def test_a_message_that_begins_with_openais_sentence_is_left_alone() -> None:
    own = resulted_in(9, 5)
    assert beginning_with(NO_NUMBERS, own) == own
    assert beginning_with(own, NO_NUMBERS) == NO_NUMBERS
    assert beginning_with(own, "prompt is too long") == f"{own} prompt is too long"
    assert beginning_with(own, "") == own
