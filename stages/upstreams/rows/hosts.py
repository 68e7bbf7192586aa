"""Providers of models of others, all of which are called as OpenAI is.

The names are LiteLLM's prefixes; addresses and variables are LiteLLM 1.110.2's unless a row says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from stages.upstreams.provider import ALL, CHAT_FIRST, CHAT_OF_ALL, Provider, compatible
from stages.upstreams.quirks import (
    FIREWORKS_RESPONSES,
    GROQ_CHAT,
    OPENROUTER_CHAT,
)

HOSTS: Final[Mapping[str, Provider]] = {
    "openrouter": Provider(
        kinds=ALL,
        origin="https://openrouter.ai",
        root="/api/v1",
        key_names=("OPENROUTER_API_KEY", "OR_API_KEY"),
        base_names=("OPENROUTER_API_BASE",),
        quirks=(OPENROUTER_CHAT,),
    ),
    "fireworks_ai": Provider(
        origin="https://api.fireworks.ai",
        root="/inference/v1",
        key_names=("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY", "FIREWORKSAI_API_KEY", "FIREWORKS_AI_TOKEN"),
        base_names=("FIREWORKS_API_BASE",),
        quirks=(FIREWORKS_RESPONSES,),
    ),
    "groq": compatible(
        "https://api.groq.com",
        "GROQ_API_KEY",
        root="/openai/v1",
        base="GROQ_API_BASE",
        quirks=(GROQ_CHAT,),
    ),
    "together_ai": compatible(
        "https://api.together.ai",
        "TOGETHER_API_KEY",
        "TOGETHER_AI_API_KEY",
        "TOGETHERAI_API_KEY",
        "TOGETHER_AI_TOKEN",
        base="TOGETHER_AI_API_BASE",
    ),
    "cerebras": compatible("https://api.cerebras.ai", "CEREBRAS_API_KEY", base="CEREBRAS_API_BASE"),
    "deepinfra": compatible(
        "https://api.deepinfra.com", "DEEPINFRA_API_KEY", root="/v1/openai", base="DEEPINFRA_API_BASE"
    ),
    "nvidia_nim": compatible("https://integrate.api.nvidia.com", "NVIDIA_NIM_API_KEY", base="NVIDIA_NIM_API_BASE"),
    "sambanova": compatible("https://api.sambanova.ai", "SAMBANOVA_API_KEY", base="SAMBANOVA_API_BASE"),
    "nebius": compatible("https://api.studio.nebius.ai", "NEBIUS_API_KEY", base="NEBIUS_API_BASE"),
    "novita": compatible("https://api.novita.ai", "NOVITA_API_KEY", root="/v3/openai", base="NOVITA_API_BASE"),
    "volcengine": compatible(
        "https://ark.cn-beijing.volces.com", "VOLCENGINE_API_KEY", root="/api/v3", base="VOLCENGINE_API_BASE"
    ),
    "hyperbolic": compatible("https://api.hyperbolic.xyz", "HYPERBOLIC_API_KEY", base="HYPERBOLIC_API_BASE"),
    "lambda_ai": compatible("https://api.lambda.ai", "LAMBDA_API_KEY", base="LAMBDA_API_BASE"),
    "featherless_ai": compatible(
        "https://api.featherless.ai",
        "FEATHERLESS_AI_API_KEY",
        "FEATHERLESS_API_KEY",
        base=("FEATHERLESS_AI_API_BASE", "FEATHERLESS_API_BASE"),
    ),
    "nscale": compatible("https://inference.api.nscale.com", "NSCALE_API_KEY", base="NSCALE_API_BASE"),
    "friendliai": compatible(
        "https://api.friendli.ai",
        "FRIENDLIAI_API_KEY",
        "FRIENDLI_TOKEN",
        root="/serverless/v1",
        base="FRIENDLI_API_BASE",
    ),
    "wandb": compatible("https://api.inference.wandb.ai", "WANDB_API_KEY", base="WANDB_API_BASE"),
    "vercel_ai_gateway": compatible(
        "https://ai-gateway.vercel.sh", "VERCEL_AI_GATEWAY_API_KEY", base="VERCEL_AI_GATEWAY_API_BASE"
    ),
    "v0": compatible("https://api.v0.dev", "V0_API_KEY", base="V0_API_BASE"),
    "morph": compatible("https://api.morphllm.com", "MORPH_API_KEY", base="MORPH_API_BASE"),
    "aiml": compatible("https://api.aimlapi.com", "AIML_API_KEY", base="AIML_API_BASE"),
    "synthetic": compatible("https://api.synthetic.new", "SYNTHETIC_API_KEY", root="/openai/v1"),
    "poe": compatible("https://api.poe.com", "POE_API_KEY"),
    "nano-gpt": compatible("https://nano-gpt.com", "NANOGPT_API_KEY", root="/api/v1"),
    "chutes": compatible("https://llm.chutes.ai", "CHUTES_API_KEY"),
    # huggingface.co/docs/inference-providers (2026-11). LiteLLM writes the host before the model, the router after it.
    "huggingface": compatible(
        "https://router.huggingface.co",
        "HF_TOKEN",
        "HUGGINGFACE_API_KEY",
        base=("HF_API_BASE", "HUGGINGFACE_API_BASE"),
        names=((re.compile(r"\A([^/]+)/([^/]+/[^/]+)\Z"), r"\2:\1"),),
    ),
    # Its models are addresses: docs.clarifai.com/compute/inference/open-ai (2026); LiteLLM writes user.app.model.
    "clarifai": compatible(
        "https://api.clarifai.com",
        "CLARIFAI_API_KEY",
        root="/v2/ext/openai/v1",
        names=((re.compile(r"\A([^./]+)\.([^./]+)\.([^./]+)\Z"), r"https://clarifai.com/\1/\2/models/\3"),),
    ),
    "datarobot": compatible(
        "https://app.datarobot.com",
        "DATAROBOT_API_TOKEN",
        root="/api/v2/genai/llmgw",
        base="DATAROBOT_ENDPOINT",
        foreign_paths=((re.compile(r"/api/v2\Z"), "/api/v2/genai/llmgw"),),
    ),
    "baseten": compatible("https://inference.baseten.co", "BASETEN_API_KEY", base="BASETEN_API_BASE"),
    "cometapi": compatible(
        "https://api.cometapi.com", "COMETAPI_KEY", "COMETAPI_API_KEY", base=("COMETAPI_BASE_URL", "COMETAPI_API_BASE")
    ),
    "compactifai": compatible("https://api.compactif.ai", "COMPACTIFAI_API_KEY"),
    "ovhcloud": compatible("https://oai.endpoints.kepler.ai.cloud.ovh.net", "OVHCLOUD_API_KEY"),
    "modelscope": compatible("https://api-inference.modelscope.cn", "MODELSCOPE_API_KEY", base="MODELSCOPE_API_BASE"),
    "edenai": compatible(
        "https://api.edenai.run", "EDENAI_API_KEY", root="/v3", base="EDENAI_API_BASE", kinds=CHAT_FIRST
    ),
    "gradient_ai": compatible("https://inference.do-ai.run", "GRADIENT_AI_API_KEY"),
    "galadriel": compatible("https://api.galadriel.com", "GALADRIEL_API_KEY", base="GALADRIEL_API_BASE"),
    "empower": compatible("https://app.empower.dev", "EMPOWER_API_KEY", root="/api/v1", base="EMPOWER_API_BASE"),
    "nadir": compatible("https://api.getnadir.com", "NADIR_API_KEY", base="NADIR_API_BASE"),
    "bytez": compatible("https://api.bytez.com", "BYTEZ_API_KEY", root="/models/v2/openai/v1"),
    "opencode_go": compatible(
        "https://opencode.ai",
        "OPENCODE_GO_API_KEY",
        "OPENCODE_API_KEY",
        root="/inference/go/openai/v1",
        base="OPENCODE_GO_API_BASE",
    ),
    "clf_ai_gateway": compatible(
        "https://api.clfaigateway.dev", "CLF_AI_GATEWAY_API_KEY", base="CLF_AI_GATEWAY_API_BASE"
    ),
    "heroku": compatible(None, "HEROKU_API_KEY", base="HEROKU_API_BASE"),  # an address for each app: INFERENCE_URL
    "publicai": compatible("https://api.publicai.co", "PUBLICAI_API_KEY", base="PUBLICAI_API_BASE"),
    "helicone": compatible("https://ai-gateway.helicone.ai", "HELICONE_API_KEY", root=""),
    "veniceai": compatible("https://api.venice.ai", "VENICE_AI_API_KEY", root="/api/v1"),
    "scaleway": compatible("https://api.scaleway.ai", "SCW_SECRET_KEY"),
    "apertis": compatible("https://api.stima.tech", "STIMA_API_KEY"),
    "zerogpu": compatible("https://api.zerogpu.ai", "ZEROGPU_API_KEY", base="ZEROGPU_API_BASE", kinds=CHAT_FIRST),
    "abliteration": compatible("https://api.abliteration.ai", "ABLITERATION_API_KEY"),
    "llamagate": compatible("https://api.llamagate.dev", "LLAMAGATE_API_KEY"),
    "gmi": compatible("https://api.gmi-serving.com", "GMI_API_KEY"),
    "assemblyai": compatible("https://llm-gateway.assemblyai.com", "ASSEMBLYAI_API_KEY"),
    "charity_engine": compatible(
        "https://api.charityengine.services", "CHARITY_ENGINE_API_KEY", root="/remotejobs/v2/inference"
    ),
    "aihubmix": compatible("https://aihubmix.com", "AIHUBMIX_API_KEY", base="AIHUBMIX_API_BASE"),
    "aiand": compatible("https://api.aiand.com", "AIAND_API_KEY", base="AIAND_API_BASE", kinds=CHAT_OF_ALL),
    "crusoe": compatible("https://api.inference.crusoecloud.com", "CRUSOE_API_KEY", base="CRUSOE_API_BASE"),
    "darkbloom": compatible("https://api.darkbloom.dev", "DARKBLOOM_API_KEY", base="DARKBLOOM_API_BASE"),
    "neosantara": compatible(
        "https://api.neosantara.xyz", "NEOSANTARA_API_KEY", base="NEOSANTARA_API_BASE", kinds=CHAT_FIRST
    ),
    "tensormesh": compatible(
        "https://serverless.tensormesh.ai",
        "TENSORMESH_INFERENCE_API_KEY",
        base="TENSORMESH_SERVERLESS_BASE_URL",
        kinds=CHAT_FIRST,
    ),
    "parasail": compatible("https://api.parasail.io", "PARASAIL_API_KEY", base="PARASAIL_API_BASE", kinds=CHAT_FIRST),
    "libertai": compatible("https://api.libertai.io", "LIBERTAI_API_KEY", base="LIBERTAI_API_BASE"),
    "empiriolabs": compatible(
        "https://api.empiriolabs.ai", "EMPIRIOLABS_API_KEY", base="EMPIRIOLABS_API_BASE", kinds=CHAT_FIRST
    ),
    "coralbricks": compatible(
        "https://inference.coralbricks.ai", "CORALBRICKS_API_KEY", base="CORALBRICKS_API_BASE", kinds=CHAT_OF_ALL
    ),
    "cortecs": compatible("https://api.cortecs.ai", "CORTECS_API_KEY", base="CORTECS_API_BASE", kinds=CHAT_OF_ALL),
    "pinstripes": compatible(
        "https://pinstripes.io", "PINSTRIPES_API_KEY", base="PINSTRIPES_API_BASE", kinds=CHAT_FIRST
    ),
    "scx-ai": compatible("https://api.scx.ai", "SCX_API_KEY", base="SCX_API_BASE"),
    "prism": compatible("https://api.prisminference.com", "PRISM_API_KEY", base="PRISM_API_BASE", kinds=CHAT_OF_ALL),
    "hostinger_router": compatible(
        "https://router.hostinger.com", "HOSTINGER_ROUTER_API_KEY", base="HOSTINGER_ROUTER_API_BASE"
    ),
    "sail": compatible("https://api.sailresearch.com", "SAIL_API_KEY", base="SAIL_API_BASE", kinds=CHAT_OF_ALL),
    "openinfer": compatible(
        "https://api.openinfer.ai", "OPENINFER_API_KEY", base="OPENINFER_API_BASE", kinds=CHAT_OF_ALL
    ),
    "inferenceapis": compatible(
        "https://api.inferenceapis.com", "INFERENCEAPIS_API_KEY", base="INFERENCEAPIS_API_BASE", kinds=CHAT_OF_ALL
    ),
    "refuseless": compatible("https://api.refuseless.com", "REFUSELESS_API_KEY", kinds=CHAT_FIRST),
    "kyma": compatible("https://kymaapi.com", "KYMA_API_KEY"),
    "streamlake": compatible(
        "https://vanchin.streamlake.ai",
        "STREAMLAKE_API_KEY",
        root="/api/gateway/v1/endpoints",
        base="STREAMLAKE_API_BASE",
    ),
    "wally": compatible("https://inference.runanywhere.ai", "WALLY_API_KEY", base="WALLY_API_BASE"),
}
