"""What a field of a section may be: its annotation in a Struct, as msgspec converts to it and as a message says it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

HIDDEN: Final = "hidden"
"""Marks text that no message may show, as in ``Annotated[str, Meta(...), HIDDEN]``."""
KEY: Final = "key"
"""Marks a key: no message shows it either, and it has to be one word of visible ASCII characters."""


@dataclass(frozen=True, slots=True)
class FieldKind:
    """What one field may be.

    Attributes:
        type: what msgspec converts to.
        bare: the same without what is said about it: ``str``, ``tuple[str, ...]``, a Struct ...
        inner: what the items of a list, or the values of a mapping, may be.
        meta: its bounds, and the description that a message ends with.
        marks: `HIDDEN`, `KEY` or neither.
        is_required: whether its section cannot do without it.
    """

    type: Any
    bare: Any
    inner: FieldKind | None
    meta: Meta | None
    marks: tuple[object, ...]
    is_required: bool = False

    @property
    def struct(self) -> type[Struct] | None:
        """The Struct that it is read into; None if it is something else."""
        return self.bare if isinstance(self.bare, type) and issubclass(self.bare, Struct) else None

    @property
    def is_mapping(self) -> bool:
        """Whether it is a mapping of names that are the user's."""
        return get_origin(self.bare) is dict

    @property
    def is_optional_text(self) -> bool:
        """Whether it is text that may be absent."""
        return self.bare is str and not self.is_required

    @property
    def is_hidden(self) -> bool:
        """Whether no message may show the value."""
        return HIDDEN in self.marks or self.is_key

    @property
    def is_key(self) -> bool:
        """Whether it is a key."""
        return KEY in self.marks

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it may be; empty if it is not limited to some."""
        return tuple(str(choice) for choice in get_args(self.bare)) if get_origin(self.bare) is Literal else ()

    def expected(self, found: object = None) -> str:
        """Return what it may be; with the greatest number, if what was ``found`` is greater."""
        if self.choices:
            return f"one of: {', '.join(self.choices)}"
        if self.meta is None or not self.meta.description:
            return "true or false" if self.bare is bool else "text"
        most = self.meta.le
        if most is not None and _is_greater(found, most) and str(most) not in self.meta.description:
            return f"{self.meta.description}, and at most {most}"
        return self.meta.description

    def convert(self, value: Any) -> Any:
        """Return the value in this type. Text that reads as a number or as true/false is accepted, as LiteLLM does.

        Raises:
            ValueError: if it does not fit.
        """
        if isinstance(value, list):
            value = [_stripped(item) if isinstance(item, str) else item for item in cast("list[object]", value)]
        elif isinstance(value, str):
            value = _stripped(value)
            if self.bare is bool and value.lower() in ("true", "false", "yes", "no", "on", "off"):
                return value.lower() in ("true", "yes", "on")
        elif self.bare is bool and not isinstance(value, bool):
            raise ValueError("1 and 0 are not true and false")
        if value == "" or (isinstance(value, list) and "" in value):
            raise ValueError("empty")
        converted = msgspec.convert(value, self.type, strict=False)  # its ValidationError is a ValueError
        if isinstance(converted, float) and not math.isfinite(converted):
            raise ValueError("not finite")
        return converted


def _stripped(text: str) -> str:
    text.encode()  # half a character, from "\\ud800" or a variable that is not UTF-8, is a UnicodeError: a ValueError
    return text.strip()


def kind_of(annotation: Any, *, is_required: bool = False) -> FieldKind:
    """Return what a field with this annotation may be; None is allowed in any case, and means that it is absent."""
    members = [member for member in get_args(annotation) if member is not NoneType]
    if get_origin(annotation) in (Union, UnionType) and len(members) == 1:
        annotation = members[0]
    bare, *said = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    meta = next((one for one in said if isinstance(one, Meta)), None)
    inner = None
    if get_origin(bare) in (tuple, dict):
        inner = kind_of([member for member in get_args(bare) if member is not Ellipsis][-1])
    return FieldKind(annotation, bare, inner, meta, tuple(one for one in said if one is not meta), is_required)


@lru_cache
def kinds_of(struct: type[Struct]) -> dict[str, FieldKind]:
    """Return what each field of a Struct may be."""
    return {
        field.name: kind_of(field.type, is_required=field.required)
        for field in msgspec.structs.fields(struct)
        if field.name != "where"
    }


def names_of(*structs: type[Struct]) -> frozenset[str]:
    """Return the names of the fields of Structs."""
    return frozenset(name for struct in structs for name in kinds_of(struct))


def _is_greater(found: object, greatest: float) -> bool:
    if isinstance(found, bool) or not isinstance(found, (int, float, str)):
        return False
    try:
        return float(found) > greatest
    except (ValueError, OverflowError):  # no number; or a whole one beyond all floats
        return isinstance(found, int) and found > 0
