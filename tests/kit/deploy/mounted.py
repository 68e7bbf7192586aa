"""A volume of ConfigMaps and Secrets on the disk, written and replaced as the kubelet does it."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree

from kit.deploy.chart import Manifest, Rendered

Files = Mapping[str, bytes]
"""The content of each file by its name."""


class MountedVolume:
    """A folder as containers see it.

    The kubelet writes all files of a volume into a new folder, ``..2026_11_30_...``, makes the link ``..data`` point to
    it by a rename, and removes the folder before. The files themselves are links through ``..data``
    (kubernetes/pkg/volume/util, AtomicWriter). So a container sees all files as they were, or all as they are.

    Args:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._times = 0
        folder.mkdir()

    def write(self, files: Files) -> None:
        """Replace all files."""
        self._times += 1
        new = self.folder / f"..2026_11_30_12_00_{self._times:02}.1234567890"
        new.mkdir()
        for name, content in files.items():
            (new / name).write_bytes(content)
            (new / name).chmod(0o440)
        data, link = self.folder / "..data", self.folder / "..data_tmp"
        before = data.resolve() if data.is_symlink() else None
        link.symlink_to(new.name)
        os.replace(link, data)
        for name in files:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        if before is not None:
            rmtree(before)


def files_of(rendered: Rendered, volume: str, *, secrets: Mapping[str, Files] | None = None) -> Files:
    """Return the files of a projected volume of the pods.

    Args:
        rendered: the release.
        volume: its name.
        secrets: those that exist beside the release, by their names.
    """
    (projected,) = (one["projected"] for one in rendered.pod["spec"]["volumes"] if one["name"] == volume)
    found: dict[str, bytes] = {}
    for source in projected["sources"]:
        for kind, reference in source.items():
            content = _content(rendered, kind, reference["name"], secrets or {})
            for item in reference["items"]:
                found[item["path"]] = content[item["key"]]
    return found


def _content(rendered: Rendered, kind: str, name: str, secrets: Mapping[str, Files]) -> Files:
    if kind == "secret" and name in secrets:
        return secrets[name]
    if kind == "secret":
        secret: Manifest = rendered.one("Secret", name)
        return {key: base64.b64decode(value) for key, value in secret["data"].items()}
    return {key: value.encode() for key, value in rendered.one("ConfigMap", name)["data"].items()}
