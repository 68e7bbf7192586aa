"""Content of a message: parts of the chat and Anthropic dialects, brought into the form of the Responses API.

Parts that already have that form pass as they are, and a list in which nothing changes is returned itself, not a copy:
most of a Cursor body never changes. Parts that hold nothing (an image whose URL is null) are left out, because no
upstream accepts them, and they come back in each turn.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from stages.wire.bad_request import BadRequest, need_text, wrong_type
from stages.wire.foreign_json import Json, encode, is_list, is_object, text
from stages.wire.unwrap import FIELD

TextType = Literal["input_text", "output_text"]
"""The type of text parts: ``output_text`` in an assistant's message, else ``input_text``."""

_TEXTS = ("text", "input_text", "output_text")  # not a set: a foreign value may be unhashable
_PARTS = (
    *(*_TEXTS, "refusal", "image", "image_url", "input_image", "input_file", "input_audio"),
    *("document", "search_result"),
)
"""Types of parts that a tool's output may hold; ``file`` only in the form of Chat Completions."""

_CITATIONS = "citations"
"""A field of Anthropic's text blocks: what the answer quoted; no later turn needs it."""


def flat_content(content: Json, text_type: TextType, where: str, mended: set[str]) -> str | list[Json]:
    """Bring the content of a message into Responses form.

    ``cache_control`` stays where it is; the adapters of other upstreams than Anthropic remove it.

    Args:
        content: a string or an array of parts.
        text_type: the type that text parts get.
        where: the path of the content, for errors.
        mended: receives the words for what had to be mended.

    Raises:
        BadRequest: if the content or one of its parts is of the wrong type.
    """
    if isinstance(content, str):
        return content
    if not is_list(content):
        raise wrong_type(where, "a string or an array of content parts", content)
    return _flat_parts(content, text_type, where, mended)


def _flat_parts(content: list[Json], text_type: TextType, where: str, mended: set[str]) -> list[Json]:
    parts: list[Json] = []
    for index, part in enumerate(content):
        inner = _inner_content(part)
        path = f"{where}[{index}]"
        if inner is None:
            flat_one = flat_part(part, text_type, path)
            if flat_one is None:
                mended.add("empty_part")
            else:
                parts.append(flat_one)
        else:
            flat = flat_content(inner, text_type, f"{path}.content", mended)
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


def flat_part(part: Json, text_type: TextType, where: str) -> dict[str, Json] | None:
    """Bring one content part into Responses form; a bare string is a text part. None if it holds nothing.

    Raises:
        BadRequest: if it is not an object, or its type or text is not a string.
    """
    if part is None or part == {}:
        return None
    if isinstance(part, str):
        return {"type": text_type, "text": part}
    if not is_object(part):
        raise wrong_type(where, "an object", part)
    kind = part.get("type")
    if kind in _TEXTS:
        return _text(part, text_type, where)
    match kind:
        case "input_image" if isinstance(part.get("image_url"), str) and part["image_url"]:
            return part
        case "input_image" if text(part.get("file_id")) and not part.get("image_url"):
            return part if "image_url" not in part else {key: part[key] for key in part if key != "image_url"}
        case "image_url" | "input_image":
            return _image(part)
        case "image":
            return _with_cache(part, _anthropic_image(part.get("source"), where))
        case "document":
            return _with_cache(part, _document(part, text_type, where))
        case "file":
            file = part.get("file")
            known = _without_nulls(file) if is_object(file) else {}
            return _with_cache(part, {"type": "input_file", **known}) if known else None
        case str():
            return part
        case None if "text" in part:
            return _text({**part, "type": "text"}, text_type, where)
        case _:
            raise wrong_type(f"{where}.type", "a string", kind)


def _with_cache(part: dict[str, Json], flat: dict[str, Json] | None) -> dict[str, Json] | None:
    if flat is not None and part.get("cache_control") is not None:
        flat["cache_control"] = part["cache_control"]
    return flat


def _without_nulls(fields: dict[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in fields.items() if value is not None}


def _text(part: dict[str, Json], text_type: TextType, where: str) -> dict[str, Json] | None:
    said = part.get("text")
    if said is None:
        return None
    if not isinstance(said, str):
        raise wrong_type(f"{where}.text", "a string", said)
    if part["type"] == text_type and _CITATIONS not in part:
        return part
    rest = {key: value for key, value in part.items() if key != _CITATIONS} if _CITATIONS in part else part
    return {**rest, "type": text_type}


def _image(part: dict[str, Json]) -> dict[str, Json] | None:
    """Flatten an image of Chat Completions, whose URL is nested in an object; some clients send the bare URL."""
    image = part.get("image_url")
    if is_object(image):
        part = {**part, **image}
        image = image.get("url")
    if not isinstance(image, str) or not image:
        return None
    flat: dict[str, Json] = {"type": "input_image", "image_url": image}
    if part.get("detail") is not None:
        flat["detail"] = part["detail"]
    return _with_cache(part, flat)


def _anthropic_image(source: Json, where: str) -> dict[str, Json] | None:
    if not is_object(source) or not _has_content(source):
        return None
    match source.get("type"):
        case "url":
            return {"type": "input_image", "image_url": need_text(source, "url", f"{where}.source")}
        case "file":
            return {"type": "input_image", "file_id": need_text(source, "file_id", f"{where}.source")}
        case _:
            return {"type": "input_image", "image_url": _data_url(source, where)}


def _has_content(source: dict[str, Json]) -> bool:
    return any(source.get(key) for key in ("data", "url", "file_id"))


def _document(part: dict[str, Json], text_type: TextType, where: str) -> dict[str, Json] | None:
    """Flatten an Anthropic document: plain text becomes text, anything else a file."""
    source = part.get("source")
    if not is_object(source) or not _has_content(source):
        return None
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


def flat_output(output: Json, where: str, mended: set[str], *, is_native: bool = False) -> str | list[Json]:
    """Bring a tool's output into Responses form: text as one string, or a list of parts if it has images or files.

    What is neither text nor content parts (a number, an object, a list of rows) becomes JSON text.

    Args:
        output: what the client sent.
        where: its path.
        mended: receives the words for what had to be mended.
        is_native: whether it is in Responses form already, where a list of parts stays a list.
    """
    if isinstance(output, str):
        return output
    listed = [output] if is_object(output) else output
    try:
        if not is_list(listed) or not all(map(_is_part, listed)):
            raise wrong_type(where, "a string or an array of content parts", output)
        parts = _flat_parts(listed, "input_text", where, mended)
    except BadRequest:
        mended.add("odd_value")
        return "" if output is None else encode(output).decode()
    if is_native or any(part["type"] != "input_text" for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts)


def _is_part(value: Json) -> bool:
    """Return whether an element of a tool's output is content, not a row of data that happens to be an object."""
    if not is_object(value):
        return value is None or isinstance(value, str)
    kind = value.get("type")
    return "text" in value if kind is None else kind in _PARTS or (kind == "file" and is_object(value.get("file")))


def is_blank(content: str | list[Json]) -> bool:
    """Return whether content in Responses form is empty or white space."""
    if isinstance(content, str):
        return not content or content.isspace()
    return all(part["type"] in _TEXTS and is_blank(part["text"]) for part in content)


def arguments_text(arguments: Json, mended: set[str]) -> str:
    """Return the arguments of a call as JSON text, as the API requires; text passes as it is, valid JSON or not."""
    if isinstance(arguments, str):
        return arguments
    if arguments is None:
        return "{}"
    if not is_object(arguments):
        mended.add("odd_value")
    return encode(arguments).decode()


def custom_text(given: Json, mended: set[str]) -> str:
    """Return the input of a custom call as text."""
    if isinstance(given, str):
        return given
    mended.add("odd_value")
    return "" if given is None else raw_input(encode(given).decode())


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
