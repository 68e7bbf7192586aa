"""Content of a message: parts of the chat and Anthropic dialects, brought into the form of the Responses API.

Parts that already have that form pass as they are, and a list in which nothing changes is returned itself, not a copy:
most of a Cursor body never changes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from stages.wire.bad_request import BadRequest, need_object, need_text, wrong_type
from stages.wire.foreign_json import Json, is_list, is_object
from stages.wire.unwrap import FIELD

TextType = Literal["input_text", "output_text"]
"""The type of text parts: ``output_text`` in an assistant's message, else ``input_text``."""

_TEXTS = ("text", "input_text", "output_text")  # not a set: a foreign value may be unhashable
_CITATIONS = "citations"
"""A field of Anthropic's text blocks: what the answer quoted; no later turn needs it."""


def flat_content(content: Json, text_type: TextType, where: str) -> str | list[Json]:
    """Bring the content of a message into Responses form.

    ``cache_control`` stays where it is; the adapters of other upstreams than Anthropic remove it.

    Args:
        content: a string or an array of parts.
        text_type: the type that text parts get.
        where: the path of the content, for errors.

    Raises:
        BadRequest: if the content or one of its parts is of the wrong type.
    """
    if isinstance(content, str):
        return content
    if not is_list(content):
        raise wrong_type(where, "a string or an array of content parts", content)
    parts: list[Json] = []
    for index, part in enumerate(content):
        inner = _inner_content(part)
        path = f"{where}[{index}]"
        if inner is None:
            parts.append(flat_part(part, text_type, path))
        else:
            flat = flat_content(inner, text_type, f"{path}.content")
            parts += [{"type": text_type, "text": flat}] if isinstance(flat, str) else flat
    if len(parts) == len(content) and all(new is old for new, old in zip(parts, content, strict=True)):
        return content
    return parts


def _inner_content(part: Json) -> Json:
    """Return the content of an Anthropic block that only wraps content; None for any other part."""
    if not is_object(part):
        return None
    match part.get("type"):
        case "document" if is_object(source := part.get("source")) and source.get("type") == "content":
            return source.get("content")
        case "search_result":
            return part.get("content")
        case _:
            return None


def flat_part(part: Json, text_type: TextType, where: str) -> dict[str, Json]:
    """Bring one content part into Responses form; a bare string is a text part.

    Raises:
        BadRequest: if it is not an object, has no type, or its text, image or file is missing.
    """
    if isinstance(part, str):
        return {"type": text_type, "text": part}
    if not is_object(part):
        raise wrong_type(where, "an object", part)
    kind = part.get("type")
    if kind in _TEXTS:
        return _text(part, text_type, where)
    match kind:
        case "input_image" if is_object(part.get("image_url")):
            return _image(part, where)
        case "image_url":
            return _image(part, where)
        case "image":
            return _with_cache(part, _anthropic_image(need_object(part.get("source"), f"{where}.source"), where))
        case "document":
            return _with_cache(part, _document(part, text_type, where))
        case "file":
            file = need_object(part.get("file"), f"{where}.file")
            return _with_cache(part, {"type": "input_file", **_without_nulls(file)})
        case str():
            return part
        case None if "text" in part:
            return _text({**part, "type": "text"}, text_type, where)
        case _:
            raise wrong_type(f"{where}.type", "a string", kind)


def _with_cache(part: dict[str, Json], flat: dict[str, Json]) -> dict[str, Json]:
    if part.get("cache_control") is not None:
        flat["cache_control"] = part["cache_control"]
    return flat


def _without_nulls(fields: dict[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in fields.items() if value is not None}


def _text(part: dict[str, Json], text_type: TextType, where: str) -> dict[str, Json]:
    text = part.get("text")
    if not isinstance(text, str):
        raise wrong_type(f"{where}.text", "a string", text)
    if part["type"] == text_type and _CITATIONS not in part:
        return part
    rest = {key: value for key, value in part.items() if key != _CITATIONS} if _CITATIONS in part else part
    return {**rest, "type": text_type}


def _image(part: dict[str, Json], where: str) -> dict[str, Json]:
    """Flatten an image of Chat Completions, whose URL is nested in an object; some clients send the bare URL."""
    image = part.get("image_url")
    if isinstance(image, str) and image:
        flat = {"type": "input_image", "image_url": image}
    else:
        image = need_object(image, f"{where}.image_url")
        flat = {"type": "input_image", "image_url": need_text(image, "url", f"{where}.image_url")}
        part = {**part, **image}
    if part.get("detail") is not None:
        flat["detail"] = part["detail"]
    return _with_cache(part, flat)


def _anthropic_image(source: dict[str, Json], where: str) -> dict[str, Json]:
    match source.get("type"):
        case "url":
            return {"type": "input_image", "image_url": need_text(source, "url", f"{where}.source")}
        case "file":
            return {"type": "input_image", "file_id": need_text(source, "file_id", f"{where}.source")}
        case _:
            return {"type": "input_image", "image_url": _data_url(source, where)}


def _document(part: dict[str, Json], text_type: TextType, where: str) -> dict[str, Json]:
    """Flatten an Anthropic document: plain text becomes text, anything else a file."""
    source = need_object(part.get("source"), f"{where}.source")
    match source.get("type"):
        case "text":
            return {"type": text_type, "text": need_text(source, "data", f"{where}.source")}
        case "url":
            return {"type": "input_file", "file_url": need_text(source, "url", f"{where}.source")}
        case "file":
            return {"type": "input_file", "file_id": need_text(source, "file_id", f"{where}.source")}
        case _:
            # OpenAI refuses file data without a name.
            title = part.get("title")
            name = title if isinstance(title, str) and title else "document.pdf"
            return {"type": "input_file", "filename": name, "file_data": _data_url(source, where)}


def _data_url(source: dict[str, Json], where: str) -> str:
    media_type = need_text(source, "media_type", f"{where}.source")
    return f"data:{media_type};base64,{need_text(source, 'data', f'{where}.source')}"


def flat_output(output: Json, where: str) -> str | list[Json]:
    """Bring a tool's output into Responses form: text as one string, or a list of parts if it has images or files.

    Raises:
        BadRequest: if it is not a string, an array of content parts or null.
    """
    if output is None:
        return ""
    parts = flat_content(output, "input_text", where)
    if isinstance(parts, str):
        return parts
    if all(part["type"] == "input_text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def is_blank(content: str | list[Json]) -> bool:
    """Return whether content in Responses form is empty or white space."""
    if isinstance(content, str):
        return not content or content.isspace()
    return all(part["type"] in _TEXTS and is_blank(part["text"]) for part in content)


def arguments_text(arguments: Json, where: str) -> str:
    """Return the arguments of a call as JSON text, as the API requires; text passes as it is, valid JSON or not.

    Raises:
        BadRequest: if they are not text, an object or null.
    """
    match arguments:
        case str():
            return arguments
        case None:
            return "{}"
        case dict():
            return msgspec.json.encode(arguments).decode()
        case _:
            raise BadRequest(f"{where} must be a string of JSON.", where)


def raw_input(arguments: str) -> str:
    """Return the raw text of a custom call that came back in a function's envelope.

    It is the arguments themselves, unless they are ``{"input": "..."}`` and nothing else, which is the form that is
    used with upstreams without custom tools.
    """
    if not arguments.startswith("{"):
        return arguments
    try:
        fields: Json = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    if is_object(fields) and len(fields) == 1 and isinstance(wrapped := fields.get(FIELD), str):
        return wrapped
    return arguments
