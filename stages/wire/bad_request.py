"""A request body that cannot be served, and the small checks that detect it.

Messages name the field, what was found (its JSON type, never its text) and what would be valid.
"""

from __future__ import annotations

from stages.wire.foreign_json import Json, is_object


class BadRequest(ValueError):
    """The client's request body cannot be served.

    Args:
        message: what was found, where, and what would be valid; safe to show to the client.
        param: the field to blame, such as ``input[3].role``; None if it is the body as a whole.
        code: a word from a bounded set.
    """

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


def json_kind(value: Json) -> str:
    """Name the JSON type of ``value`` with its article, for "must be a string, not ..."."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string" if value else "an empty string"
        case list():
            return "an array" if value else "an empty array"
        case _:
            return "an object"


def wrong_type(param: str, expected: str, value: Json) -> BadRequest:
    """Return the error for a field of the wrong type; ``expected`` is a noun with its article."""
    found = json_kind(value)
    if found == "a number" and ("number" in expected or expected[:1].isdigit()):
        found = "another number"
    return BadRequest(f"{param} must be {expected}, not {found}.", param)


def need_object(value: Json, param: str) -> dict[str, Json]:
    """Return ``value`` if it is a JSON object.

    Raises:
        BadRequest: if it is anything else.
    """
    if is_object(value):
        return value
    raise wrong_type(param, "an object", value)


def need_text(record: dict[str, Json], key: str, where: str) -> str:
    """Return the non-empty string at ``record[key]``; ``where`` is the path of ``record``.

    Raises:
        BadRequest: if it is missing, empty or not a string.
    """
    value = record.get(key)
    if isinstance(value, str) and value:
        return value
    param = f"{where}.{key}"
    if value is None:
        raise BadRequest(f"{param} is missing; it must be a non-empty string.", param)
    raise wrong_type(param, "a non-empty string", value)
