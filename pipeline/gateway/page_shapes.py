"""The shapes of what small pages answer, as types: models, and whether the process is ready."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class ListedModel(TypedDict):
    """A model that the key may use.

    Attributes:
        id: its name.
        created: when the process was started, in seconds since the epoch.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    """The models that the key may use."""

    object: Literal["list"]
    data: list[ListedModel]


class Readiness(TypedDict):
    """Whether the process is ready for requests. ``db`` is what LiteLLM says without a database."""

    status: Literal["healthy", "starting", "draining"]
    db: NotRequired[str]
