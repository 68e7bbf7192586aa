"""Rules that OpenAI's two APIs share, and those of its model families.

Sources: OpenAI's API reference of 2026-11 (platform.openai.com/docs/api-reference), its guides "Using GPT-6" and
"Reasoning", and reports where a row names one.
"""

from __future__ import annotations

import re
from typing import Final

from kit.vendors.double import Ask, Double, Refused

NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MAX_CALL_ID: Final = 64
GPT_5_EFFORTS: Final = frozenset({"none", "minimal", "low", "medium", "high", "xhigh"})
GPT_6_EFFORTS: Final = frozenset({"low", "medium", "high", "xhigh", "max"})


def check_path(double: Double, ask: Ask) -> None:
    if ask.method != "POST" or ask.path.split("?")[0] != double.PATH:
        raise Refused(f"Invalid URL ({ask.method} {ask.path})", code="not_found", status=404)


def check_model(double: Double, ask: Ask) -> None:
    if ask.body.get("model") not in double.models:
        raise Refused(f"The model `{ask.body.get('model')}` does not exist.", "model", "model_not_found", 404)


def refuse(ask: Ask, *names: str) -> None:
    """Refuse parameters that a model does not have."""
    for name in names:
        if ask.body.get(name) is not None:
            raise Refused(f"Unsupported parameter: '{name}' is not supported with this model.", name)


def check_effort(effort: object, known: frozenset[str], where: str) -> None:
    if effort is not None and effort not in known:
        raise Refused(f"Unsupported value: '{where}' does not support '{effort}' with this model.", where)


def check_name(name: object, where: str) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Refused(f"Invalid '{where}': expected a string that matches '^[a-zA-Z0-9_-]{{1,64}}$'.", where)


def check_metadata(double: Double, ask: Ask) -> None:
    metadata = ask.body.get("metadata") or {}
    if len(metadata) > 16 or any(not isinstance(value, str) or len(value) > 512 for value in metadata.values()):
        raise Refused("Invalid 'metadata'.", "metadata")


def check_schema(parameters: object, where: str) -> None:
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        raise Refused("Invalid schema for function: schema must be a JSON Schema of 'type: \"object\"'.", where)
