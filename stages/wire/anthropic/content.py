"""Content of the normal form, as blocks of Anthropic Messages. Part types unknown to it are left out.

Source: Anthropic's Messages reference, https://platform.claude.com/docs/en/api/messages (2026-11).
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Final

from stages.wire.bad_request import BadRequest
from stages.wire.foreign_json import Json, is_list, is_object
from stages.wire.normal_form import image_type, image_url_of

_TEXTS: Final = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_IMAGE_TYPES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")

_PDF: Final = "application/pdf"
_PDF_START: Final = "JVBERi"
_READABLE: Final = re.compile(r"text/|application/(?:json|xml|yaml|x-yaml|toml|javascript|typescript|x-sh|sql)\Z")
_DATA_URL: Final = re.compile(r"data:(?P<type>[^;,]*)(?P<options>[^,]{0,200}),", re.IGNORECASE)
_MAX_TITLE_CHARS: Final = 500
"""Anthropic's limit for the title of a document."""


def text_blocks(content: Json) -> list[dict[str, Json]]:
    """Return the text in content, refusals included, as blocks; blank text, which Anthropic refuses, is left out."""
    parts: list[Json] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [block for part in (parts if is_list(parts) else []) for block in _texts(part)]


def content_blocks(content: Json, where: str) -> list[dict[str, Json]]:
    """Return a user's content or a tool's output as blocks.

    Args:
        content: a string or parts.
        where: its path, for errors.

    Raises:
        BadRequest: if an image or file is named by an id, or is of a type that Anthropic cannot read.
    """
    if is_object(content) and content.get("type") == "computer_screenshot":
        content = [{**content, "type": "input_image"}]
    if not is_list(content):
        return text_blocks(content)
    blocks: list[dict[str, Json]] = []
    for place, part in enumerate(content):
        kind = part.get("type") if is_object(part) else None
        if kind == "input_image":
            blocks.append(_image(part, f"{where}[{place}]"))
        elif kind == "input_file":
            blocks += _file(part, f"{where}[{place}]")
        else:
            blocks += _texts(part)
    return blocks


def marked(source: dict[str, Json], block: dict[str, Json]) -> dict[str, Json]:
    """Put the client's own cache breakpoint on a block."""
    if is_object(source.get("cache_control")):
        block["cache_control"] = source["cache_control"]
    return block


def _texts(part: Json) -> list[dict[str, Json]]:
    if not is_object(part):
        return []
    kind = part.get("type")
    text = part.get("text") if kind in _TEXTS else part.get("refusal") if kind == "refusal" else None
    if not isinstance(text, str) or not text or text.isspace():
        return []
    return [marked(part, {"type": "text", "text": text})]


def _image(part: dict[str, Json], where: str) -> dict[str, Json]:
    url = image_url_of(part, where)
    source = _address(url) or _base64(url)
    if source is None:
        raise BadRequest(
            f"{where}.image_url must be an http(s) URL, or a data: URL with the image in base64.", f"{where}.image_url"
        )
    if source["type"] == "base64":
        # A wrong media type is refused: 400 "does not match the provided media type".
        named = source["media_type"].replace("image/jpg", "image/jpeg")
        source["media_type"] = image_type(source["data"]) or named
        if source["media_type"] not in _IMAGE_TYPES:
            raise BadRequest(
                f"{where} is an image of a type that the upstream of this model does not read; it reads PNG, JPEG, GIF "
                "and WebP.",
                f"{where}.image_url",
            )
    return marked(part, {"type": "image", "source": source})


def _file(part: dict[str, Json], where: str) -> list[dict[str, Json]]:
    """Return a file as a document, or as an image if it is one; an empty text becomes no block."""
    data, url = part.get("file_data"), part.get("file_url")
    if isinstance(url, str) and (address := _address(url)) is not None:
        return [marked(part, _document(part, address))]
    if not isinstance(data, str) or not data:
        raise BadRequest(
            f"{where} holds neither file_data nor a file_url, which is all that the upstream of this model can read; "
            "send the file itself.",
            f"{where}.file_data",
        )
    source = _base64(data)
    if source is None and not data.startswith("data:"):
        source = {"type": "base64", "media_type": "", "data": data}
    if source is not None and source["media_type"] in _IMAGE_TYPES:
        return [_image({**part, "image_url": data}, where)]
    if source is not None and (source["media_type"] == _PDF or source["data"].startswith(_PDF_START)):
        source["media_type"] = _PDF
    elif source is not None and _READABLE.match(source["media_type"]) and (text := _decoded(source)) is not None:
        if not text or text.isspace():
            return []
        source = {"type": "text", "media_type": "text/plain", "data": text}
    else:
        raise BadRequest(
            f"{where} is a file of a type that the upstream of this model does not read; it reads PDF, text and "
            "images, as data: URLs in base64.",
            f"{where}.file_data",
        )
    return [marked(part, _document(part, source))]


def _document(part: dict[str, Json], source: dict[str, Json]) -> dict[str, Json]:
    title = part.get("filename")
    block: dict[str, Json] = {"type": "document", "source": source}
    if isinstance(title, str) and title and not title.isspace():
        block["title"] = title[:_MAX_TITLE_CHARS]
    return block


def _address(url: str) -> dict[str, Json] | None:
    return {"type": "url", "url": url} if url[:8].lower().startswith(("https://", "http://")) else None


def _base64(url: str) -> dict[str, Json] | None:
    head = _DATA_URL.match(url)
    if head is None or not head["options"].lower().endswith(";base64") or head.end() == len(url):
        return None
    return {"type": "base64", "media_type": head["type"].lower(), "data": url[head.end() :]}


def _decoded(source: dict[str, Json]) -> str | None:
    try:
        return b64decode(source["data"]).decode()
    except ValueError:  # not base64, or not UTF-8
        return None
