"""Content of the normal form, in the form of Chat Completions. Part types unknown to it are left out."""

from __future__ import annotations

from stages.wire.bad_request import BadRequest
from stages.wire.foreign_json import Json, is_list, is_object
from stages.wire.normal_form import image_url_of

_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_PARAGRAPH = "\n\n"
_DETAILS = ("auto", "low", "high")  # not a set: a foreign value may be unhashable
"""Of images; ``original`` is known to the Responses API only (docs/facts/translation.md, "Parameters")."""


def user_content(content: Json, where: str, mended: set[str], *, has_files: bool) -> str | list[dict[str, Json]]:
    """Return a user's content: one string if it is text only, because not all servers accept parts.

    Args:
        content: a string or parts.
        where: its path, for errors.
        mended: receives the words for what had to be mended.
        has_files: whether the upstream stores files that an id names.

    Raises:
        BadRequest: if an image or file is named by an id that this upstream cannot know.
    """
    parts = _parts(content, where, mended, has_files=has_files)
    if all(part["type"] == "text" for part in parts):
        return _PARAGRAPH.join(part["text"] for part in parts)
    return parts


def plain_text(content: Json) -> str:
    """Return the text of an assistant's message, whose parts are pieces of one text."""
    if isinstance(content, str):
        return content
    parts = content if is_list(content) else []
    return "".join(_text(part) for part in parts if is_object(part) and part.get("type") in _TEXTS)


def refusal_text(content: Json) -> str:
    """Return the refusals in an assistant's message, joined."""
    parts = content if is_list(content) else []
    return "".join(
        part["refusal"]
        for part in parts
        if is_object(part) and part.get("type") == "refusal" and isinstance(part.get("refusal"), str)
    )


def tool_content(output: Json, where: str, mended: set[str], *, has_files: bool) -> tuple[str, list[dict[str, Json]]]:
    """Return a tool's output: its text, and the images and files that a tool message cannot hold.

    Raises:
        BadRequest: as in `user_content`.
    """
    if is_object(output) and output.get("type") == "computer_screenshot":
        output = [{**output, "type": "input_image"}]
    parts = _parts(output, where, mended, has_files=has_files)
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    return text, [part for part in parts if part["type"] != "text"]


def _parts(content: Json, where: str, mended: set[str], *, has_files: bool) -> list[dict[str, Json]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    parts: list[dict[str, Json]] = []
    for place, part in enumerate(content if is_list(content) else []):
        kind = part.get("type") if is_object(part) else None
        path = f"{where}[{place}]"
        if kind in _TEXTS:
            parts.append({"type": "text", "text": _text(part)})
        elif kind == "input_image":
            parts.append(_image(part, path, mended))
        elif kind == "input_file":
            parts.append(_file(part, path, has_files=has_files))
        elif kind == "input_audio" and "input_audio" in part:
            parts.append({"type": "input_audio", "input_audio": part["input_audio"]})
    return parts


def _text(part: dict[str, Json]) -> str:
    text = part.get("text")
    return text if isinstance(text, str) else ""


def _image(part: dict[str, Json], where: str, mended: set[str]) -> dict[str, Json]:
    url = image_url_of(part, where)
    detail = part.get("detail")
    if detail and detail not in _DETAILS:
        mended.add("image_detail")
        detail = "high" if detail == "original" else "auto"
    return {"type": "image_url", "image_url": {"url": url, "detail": detail} if detail else {"url": url}}


def _file(part: dict[str, Json], where: str, *, has_files: bool) -> dict[str, Json]:
    names = ("file_data", "filename", "file_id") if has_files else ("file_data", "filename")
    file = {name: part[name] for name in names if part.get(name)}
    if "file_data" not in file and "file_id" not in file:
        raise BadRequest(
            f"{where} holds no file_data, which is all that the upstream of this model can read; send the file itself.",
            f"{where}.file_data",
        )
    return {"type": "file", "file": file}
