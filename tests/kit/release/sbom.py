"""The software bill of materials of a release: CycloneDX 1.6, JSON.

It is written here rather than by a tool, since tools know either the hashes (from a lock) or the licences (from an
environment), and name only the versions for the Python that runs them. The lock is the source; licences come from the
metadata of what is installed. The same commit has the same document, byte for byte.

Source: https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from kit.release.lock import Contents, Locked
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

JsonObject = dict[str, Any]

_SPELLINGS = {
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""What packages of the lock call their licences, where SPDX has another name for it."""

NEEDED, OPTIONAL, BUILD = "required", "optional", "excluded"
"""CycloneDX' scopes: needed by headrace, by one of its extras, or by its build alone."""


def licences(name: str) -> list[JsonObject]:
    """Return the licence of an installed package, as it declares it.

    Raises:
        LookupError: if it is not installed, or declares none.
    """
    try:
        declared = metadata(name).json
    except PackageNotFoundError:
        raise LookupError(f"{name} is not installed, so its licence is unknown: run `make dist`") from None
    found = str(declared.get("license_expression") or declared.get("license") or "")
    if not found or "\n" in found:
        classifiers = [value for value in declared.get("classifier", ()) if value.startswith("License ::")]
        found = " OR ".join(value.rpartition(" :: ")[2] for value in classifiers)
    if not found:
        raise LookupError(f"{name} declares no licence")
    found = _SPELLINGS.get(found, found)
    try:
        return [{"expression": canonicalize_license_expression(found)}]
    except InvalidLicenseExpression:
        return [{"license": {"name": found}}]


def component(package: Locked, scope: str) -> JsonObject:
    """Return the component for a locked package. One that is for other Pythons has the licence of the installed one."""
    described: JsonObject = {
        "type": "library",
        "bom-ref": package.reference,
        "name": package.name,
        "version": package.version,
        "purl": package.reference,
        "scope": scope,
        "licenses": licences(package.name),
        "externalReferences": [
            {
                "type": "distribution",
                "url": f"https://pypi.org/project/{package.name}/{package.version}/#files",
                "comment": "one hash for each file; pip installs the one that fits",
                "hashes": sha256(package.hashes),
            }
        ],
    }
    if package.marker:
        described["properties"] = [{"name": "headrace:environment-marker", "value": package.marker}]
    return described


def sha256(digests: Iterable[str]) -> list[JsonObject]:
    return [{"alg": "SHA-256", "content": digest} for digest in digests]


def bill(project: Mapping[str, Any], contents: Contents, files: Mapping[str, str], epoch: int) -> JsonObject:
    """Return the document.

    Args:
        project: the table ``project`` of pyproject.toml.
        contents: what is locked for the release.
        files: the names of the wheel and the sdist, and their SHA-256 in hexadecimal.
        epoch: the time of the commit, in seconds since 1970.
    """
    name, version = str(project["name"]), str(project["version"])
    reference = f"pkg:pypi/{name}@{version}"
    home = str(project["urls"]["Homepage"])
    scopes = ((contents.needed, NEEDED), (contents.optional, OPTIONAL), (contents.build, BUILD))
    packages = [package for group, _ in scopes for package in group]
    components = [component(package, scope) for group, scope in scopes for package in group]
    described = {
        "type": "application",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "description": project["description"],
        "purl": reference,
        "licenses": [{"expression": project["license"]}],
        "externalReferences": [
            {"type": "vcs", "url": home},
            *(
                {"type": "distribution", "url": f"{home}/releases/download/v{version}/{file}", "hashes": sha256([it])}
                for file, it in sorted(files.items())
            ),
        ],
    }
    dependencies = [{"ref": reference, "dependsOn": [it.reference for it in packages if it.name in contents.direct]}]
    dependencies += [
        {"ref": package.reference, "dependsOn": [other.reference for other in packages if package.needs(other)]}
        for package in packages
    ]
    identity = " ".join((reference, *(f"{file} {digest}" for file, digest in sorted(files.items()))))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, identity)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).isoformat().replace("+00:00", "Z"),
            "authors": [{"name": author["name"]} for author in project["authors"]],
            "component": described,
        },
        "components": sorted(components, key=lambda it: str(it["bom-ref"])),
        "dependencies": sorted(dependencies, key=lambda it: str(it["ref"])),
    }


def encoded(document: JsonObject) -> str:
    """Return the text of a document.

    Raises:
        ValueError: if it is not what CycloneDX 1.6 allows.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if (error := schema_error(text)) is not None:
        raise ValueError(f"the SBOM is not what CycloneDX 1.6 allows: {error}")
    return text


def schema_error(text: str) -> str | None:
    """Return what CycloneDX' own library says against a document of version 1.6, or None."""
    json_validation: Any = importlib.import_module("cyclonedx.validation.json")  # not there while mypy runs in CI
    schema: Any = importlib.import_module("cyclonedx.schema")
    error = json_validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(text)
    return None if error is None else str(error)
