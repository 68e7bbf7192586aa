"""Content of a message: parts of the chat and Anthropic dialects, brought into the form of the Responses API.

Parts that already have that form pass as they are, and a list in which nothing changes is returned itself, not a copy:
most of a Cursor body never changes. Parts that hold nothing (an image whose URL is null) are left out, because no
upstream accepts them, and they come back in each turn. What is not content at all (a number) becomes its JSON text.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from stages.wire.foreign_json import Json, encode, is_list, is_object, text
from stages.wire.normal_form import image_type
from stages.wire.unwrap import FIELD

TextType = Literal["input_text", "output_text"]
"""The type of text parts: ``output_text`` in an assistant's message, else ``input_text``."""

_TEXTS = ("text", "input_text", "output_text")  # not a set: a foreign value may be unhashable
_PARTS = (
    *(*_TEXTS, "refusal", "image", "image_url", "input_image", "input_file", "input_audio"),
    *("document", "search_result"),
)
"""Types of parts that a tool's output may hold; ``file`` only in the form of Chat Completions."""

_KINDS = {
    "text": "text",
    "image_url": "image_url",
    "file": "file",
    "source": "image",
    "refusal": "refusal",
}
"""The type of a part whose own is missing or not a string, by its field."""

_MAX_TYPE_CHARS = 64
"""Only the end of a URL is looked at: an image may have megabytes."""

_CITATIONS = "citations"
"""A field of Anthropic's text blocks: what the answer quoted; no later turn needs it."""


def listed_content(content: Json, mended: set[str]) -> Json:
    """Return content that is a string, an array or null: one part gets an array, anything else becomes JSON text."""
    if content is None or isinstance(content, str) or is_list(content):
        return content
    mended.add("odd_value")
    return [content] if is_object(content) else _json_text(content)


def flat_content(content: Json, text_type: TextType, mended: set[str]) -> str | list[Json]:
    """Bring the content of a message into Responses form; one part may come without its array.

    ``cache_control`` stays where it is; the adapters of other upstreams than Anthropic remove it.

    Args:
        content: what the client sent.
        text_type: the type that text parts get.
        mended: receives the words for what had to be mended.
    """
    content = listed_content(content, mended)
    return _flat_parts(content, text_type, mended) if is_list(content) else text(content)


def _json_text(value: Json) -> str:
    return encode(value).decode()


def _flat_parts(content: list[Json], text_type: TextType, mended: set[str]) -> list[Json]:
    parts: list[Json] = []
    for part in content:
        inner = _inner_content(part)
        if inner is None:
            flat_one = flat_part(part, text_type, mended)
            if flat_one is None:
                mended.add("empty_part")
            else:
                parts.append(flat_one)
        else:
            flat = flat_content(inner, text_type, mended)
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


def flat_part(part: Json, text_type: TextType, mended: set[str]) -> dict[str, Json] | None:
    """Bring one content part into Responses form; a bare string is a text part. None if it holds nothing.

    A part without a type has that of its field. One that has no known field either becomes its JSON text.
    """
    if part is None or part == {}:
        return None
    if isinstance(part, str):
        return {"type": text_type, "text": part}
    if not is_object(part):
        mended.add("odd_value")
        return {"type": text_type, "text": _json_text(part)}
    kind = part.get("type")
    if kind in _TEXTS:
        return _text(part, text_type, mended)
    match kind:
        case "input_image" if isinstance(url := part.get("image_url"), str) and url:
            return part if _has_data(url) else None
        case "input_image" if text(part.get("file_id")) and not part.get("image_url"):
            return part if "image_url" not in part else {key: part[key] for key in part if key != "image_url"}
        case "image_url" | "input_image":
            return _image(part)
        case "image":
            return _with_cache(part, _anthropic_image(part.get("source")))
        case "document":
            return _with_cache(part, _document(part, text_type))
        case "file":
            file = part.get("file")
            known = _without_nulls(file) if is_object(file) else {}
            return _with_cache(part, {"type": "input_file", **known}) if known else None
        case str():
            return part
        case None if "text" in part:
            return _text({**part, "type": "text"}, text_type, mended)
        case _:
            mended.add("odd_value")
            named = next((name for field, name in _KINDS.items() if field in part), None)
            if named is None:
                return {"type": text_type, "text": _json_text(part)}
            return flat_part({**part, "type": named}, text_type, mended)


def _has_data(url: str) -> bool:
    """Return whether an image is there: one that could not be read leaves ``data:image/png;base64,``."""
    return url[:5].lower() != "data:" or not url[-_MAX_TYPE_CHARS:].rstrip().endswith(",")


def _with_cache(part: dict[str, Json], flat: dict[str, Json] | None) -> dict[str, Json] | None:
    if flat is not None and part.get("cache_control") is not None:
        flat["cache_control"] = part["cache_control"]
    return flat


def _without_nulls(fields: dict[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in fields.items() if value is not None}


def _text(part: dict[str, Json], text_type: TextType, mended: set[str]) -> dict[str, Json] | None:
    said = part.get("text")
    if said is None:
        return None
    if not isinstance(said, str):
        mended.add("odd_value")
        part = {**part, "text": _json_text(said)}
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
    if not isinstance(image, str) or not image or not _has_data(image):
        return None
    flat: dict[str, Json] = {"type": "input_image", "image_url": image}
    if part.get("detail") is not None:
        flat["detail"] = part["detail"]
    return _with_cache(part, flat)


def _anthropic_image(source: Json) -> dict[str, Json] | None:
    if not is_object(source):
        return None
    if url := text(source.get("url")):
        return {"type": "input_image", "image_url": url}
    if file_id := text(source.get("file_id")):
        return {"type": "input_image", "file_id": file_id}
    if data := text(source.get("data")):
        return {"type": "input_image", "image_url": _data_url(source, image_type(data) or "image/png")}
    return None


def _document(part: dict[str, Json], text_type: TextType) -> dict[str, Json] | None:
    """Flatten an Anthropic document: plain text becomes text, anything else a file."""
    source = part.get("source")
    if not is_object(source):
        return None
    if url := text(source.get("url")):
        return {"type": "input_file", "file_url": url}
    if file_id := text(source.get("file_id")):
        return {"type": "input_file", "file_id": file_id}
    data = text(source.get("data"))
    if not data:
        return None
    if source.get("type") == "text":
        return {"type": text_type, "text": data}
    # OpenAI refuses file data without a name.
    name = text(part.get("title")) or "document.pdf"
    return {"type": "input_file", "filename": name, "file_data": _data_url(source, "application/pdf")}


def _data_url(source: dict[str, Json], likely: str) -> str:
    """Return base64 data as a URL, with the likely media type if there is none."""
    return f"data:{text(source.get('media_type')) or likely};base64,{source['data']}"


def flat_output(output: Json, mended: set[str], *, is_native: bool = False) -> str | list[Json]:
    """Bring a tool's output into Responses form: text as one string, or a list of parts if it has images or files.

    What is neither text nor content parts (a number, an object, a list of rows) becomes JSON text.

    Args:
        output: what the client sent.
        mended: receives the words for what had to be mended.
        is_native: whether it is in Responses form already, where a list of parts stays a list.
    """
    if isinstance(output, str):
        return output
    listed = [output] if is_object(output) else output
    if not is_list(listed) or not all(map(_is_part, listed)):
        mended.add("odd_value")
        return "" if output is None else _json_text(output)
    parts = _flat_parts(listed, "input_text", mended)
    if is_native or any(part["type"] != "input_text" for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts)


def _is_part(value: Json) -> bool:
    """Return whether an element of a tool's output is content, not a row of data that happens to be an object."""
    if not is_object(value):
        return value is None or isinstance(value, str)
    kind = value.get("type")
    if kind is None or kind in _TEXTS:
        return (kind is not None or "text" in value) and isinstance(value.get("text"), str | None)
    return kind in _PARTS or (kind == "file" and is_object(value.get("file")))


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
