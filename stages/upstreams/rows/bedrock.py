"""Amazon Bedrock, by its endpoints that speak OpenAI's and Anthropic's APIs and take a Bedrock API key.

The name of a model says which of the two endpoints has it, and in which API:

* ``bedrock-runtime`` (``/openai/v1``, ``/anthropic/v1``) has the newer models of Anthropic, OpenAI and xAI, named by a
  cross-region profile (``us.anthropic.claude-opus-5``), and gpt-oss (``openai.gpt-oss-120b-1:0``).
* ``bedrock-mantle`` has the names without a profile and without a version: Claude at ``/anthropic/v1``, GPT, Grok and
  Gemma 4 at ``/openai/v1``, all others at ``/v1``.
* Names that end in a version (``-v1:0``) are those of InvokeModel and Converse, which only sign requests for (SigV4) or
  speak formats that are not translated here.

Sources (2026-11): docs.aws.amazon.com/bedrock/latest/userguide, pages endpoints, inference-responses-api,
inference-chat-completions and inference-messages-api; platform.claude.com/docs, "Claude in Amazon Bedrock" and "Claude
on Amazon Bedrock (Opus 4.6 and earlier)"; the models' APIs as LiteLLM 1.110.2's price map has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from stages.upstreams.provider import BOTH, CHAT_FIRST, CHAT_ONLY, MESSAGES, AddressPart, ModelRoute, Provider
from stages.upstreams.quirks import BEDROCK_CHAT, BEDROCK_GPT_CHAT, BEDROCK_RESPONSES

_RUNTIME: Final = "https://bedrock-runtime.{region}.amazonaws.com"
_MANTLE: Final = "https://bedrock-mantle.{region}.api.aws"
_PROFILE: Final = r"(?:us|eu|apac|global|jp|au|in|ca|sa|us-gov)\."

_VERSION: Final = r"-v\d+(?::\d+)?(?::\w+)?\Z"

_ON_MANTLE: Final = (
    ModelRoute(models=re.compile(r"\Aanthropic\."), kinds=MESSAGES, origin=_MANTLE, root="/anthropic/v1", quirks=()),
    ModelRoute(
        models=re.compile(r"\Aopenai\.gpt-(?!oss)"),
        kinds=BOTH,
        origin=_MANTLE,
        root="/openai/v1",
        quirks=(BEDROCK_RESPONSES, BEDROCK_GPT_CHAT),
    ),
    ModelRoute(
        models=re.compile(r"\A(?:xai\.grok|google\.gemma-4)"),
        kinds=CHAT_FIRST,
        origin=_MANTLE,
        root="/openai/v1",
        quirks=(BEDROCK_CHAT,),
    ),
    ModelRoute(
        models=re.compile(r"\Aopenai\.gpt-oss-(?!safeguard)"), kinds=CHAT_FIRST, origin=_MANTLE, quirks=(BEDROCK_CHAT,)
    ),
    ModelRoute(
        models=re.compile(r"\A\*"),
        reason="the name of a Bedrock model says how it is called: name the models, or write bedrock/us.anthropic.* "
        "for those of one maker",
    ),
)

_ON_RUNTIME: Final = (
    ModelRoute(
        models=re.compile(rf"anthropic\.\S*{_VERSION}"),
        reason="Bedrock has the Claude models whose name ends in a version (-v1:0) only by InvokeModel and Converse, "
        "which are not supported; name one without, such as us.anthropic.claude-opus-5 or anthropic.claude-haiku-4-5",
    ),
    ModelRoute(
        models=re.compile(_VERSION),
        reason="Bedrock has names that end in a version (-v1:0) only by InvokeModel and Converse, which are not "
        "supported; where it has the model by OpenAI's API, its name there has none, as in qwen.qwen3-32b",
    ),
    ModelRoute(
        models=re.compile(rf"\A{_PROFILE}anthropic\."), kinds=MESSAGES, origin=_RUNTIME, root="/anthropic/v1", quirks=()
    ),
    ModelRoute(
        models=re.compile(rf"\A{_PROFILE}openai\.gpt-(?!oss)"),
        kinds=BOTH,
        origin=_RUNTIME,
        root="/openai/v1",
        quirks=(BEDROCK_RESPONSES, BEDROCK_GPT_CHAT),
    ),
    ModelRoute(
        models=re.compile(rf"\A(?:{_PROFILE}xai\.grok|(?:{_PROFILE})?openai\.gpt-oss\S*-\d+:\d+\Z)"),
        kinds=CHAT_ONLY,
        origin=_RUNTIME,
        root="/openai/v1",
        quirks=(BEDROCK_CHAT,),
    ),
    ModelRoute(
        models=re.compile(rf"\A{_PROFILE}|(?:\A|/)arn:"),
        reason="Bedrock has this model only by InvokeModel and Converse, which are not supported; docs/config.md says "
        "which models it has by OpenAI's and Anthropic's APIs",
    ),
)

_REGION_IN_NAME: Final = re.compile(r"\A(?:converse/|converse_like/|invoke/|mantle/)?([a-z]{2}(?:-gov)?-[a-z]+-\d)/")

_REGION: Final = AddressPart(
    name="region",
    what="a region",
    params=("aws_region_name", "region_name"),
    variables=("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"),
    default="us-west-2",
    in_name=_REGION_IN_NAME,
)

_BEDROCK: Final = Provider(
    kinds=CHAT_ONLY,
    routes=(*_ON_RUNTIME, *_ON_MANTLE),
    origin=_MANTLE,
    parts=(_REGION,),
    # bedrock/converse/..., bedrock/us-east-1/anthropic...: LiteLLM's routes and regions.
    names=((_REGION_IN_NAME, ""), (re.compile(r"\A(?:converse(?:_like)?|invoke|mantle)/"), "")),
    key_names=("AWS_BEARER_TOKEN_BEDROCK",),
    signs_in_to="AWS",
    token_from="a Bedrock API key as AWS_BEARER_TOKEN_BEDROCK or api_key is; requests are not signed with AWS keys",
)

BEDROCK: Final[Mapping[str, Provider]] = {
    "bedrock": _BEDROCK,
    "bedrock_converse": _BEDROCK,
    "bedrock_mantle": replace(
        _BEDROCK,
        routes=_ON_MANTLE,
        parts=(replace(_REGION, variables=("BEDROCK_MANTLE_REGION", *_REGION.variables), default="us-east-1"),),
        key_names=("BEDROCK_MANTLE_API_KEY", *_BEDROCK.key_names),
        base_names=("BEDROCK_MANTLE_API_BASE",),
    ),
}
