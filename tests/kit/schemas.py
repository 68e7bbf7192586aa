"""Validate responses against JSON Schemas of OpenAI's chat.completion and chat.completion.chunk.

The project's own schemas, which are closed, always apply, and so do those of ``/openapi.json``. Where a folder
``shared`` lies beside the repository, the schemas of OpenAI's published specification apply as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from kit.needs import ROOT, SHARED
from kit.openapi import validator
from referencing import Registry, Resource

_OWN = ROOT / "tests" / "data" / "schema"


def _load(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


_REGISTRY = Registry[Any]().with_resources(
    [(path.name, Resource[Any].from_contents(_load(path))) for path in _OWN.glob("*.json")]
)


def _validators(name: str, documented: str) -> list[Draft202012Validator]:
    published = SHARED / "schema" / name
    return [
        Draft202012Validator(_load(_OWN / name), registry=_REGISTRY),
        validator("components", "schemas", documented),
        *([Draft202012Validator(_load(published))] if published.exists() else []),
    ]


_CHUNK = _validators("chat_chunk.schema.json", "ChatCompletionChunk")
_COMPLETION = _validators("chat_completion.schema.json", "ChatCompletion")


def validate_chunk(chunk: Any) -> None:
    """Raise `jsonschema.ValidationError` if this is not a chunk of a streamed completion."""
    _validate(_CHUNK, chunk)


def validate_completion(completion: Any) -> None:
    """Raise `jsonschema.ValidationError` if this is not a whole completion."""
    _validate(_COMPLETION, completion)


def _validate(validators: Sequence[Draft202012Validator], value: Any) -> None:
    for one in validators:
        one.validate(value)
