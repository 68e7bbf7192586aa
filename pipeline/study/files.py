"""Why a file cannot be read or written, as a sentence that says what to do."""

from __future__ import annotations

import errno
import os


def unreadable(name: str, error: OSError) -> str:
    """Return the sentence for a file that cannot be read."""
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return f"{name}: there is no such file: check its name"
        case errno.EISDIR:
            return f"{name} is a folder: name a file in it"
        case _:
            return f"{name} cannot be read ({_said(error)}): check its permissions, and those of its folder"


def unwritable(name: str, error: OSError) -> str:
    """Return the sentence for a file that cannot be written."""
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR if not os.path.isdir(folder := os.path.dirname(name) or "."):
            is_file = os.path.exists(folder)
            found = f"{folder} is not a folder" if is_file else f"there is no folder {folder}: make it first"
            return f"{name} cannot be written: {found}{': ' if is_file else ', or '}name another one"
        case errno.EISDIR:
            return f"{name} is a folder: name a file in it"
        case errno.EEXIST:
            return f"{name} exists: name another file, or remove it"
        case errno.ENOSPC | errno.EDQUOT:
            return f"{name} cannot be written ({_said(error)}): make room on that disk, or name a file on another one"
        case _:
            return (
                f"{name} cannot be written ({_said(error)}): check the permissions of its folder, or name another one"
            )


def _said(error: OSError) -> str:
    return error.strerror or type(error).__name__
