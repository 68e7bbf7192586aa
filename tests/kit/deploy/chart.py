"""The Helm chart, rendered by Helm itself, and its objects checked as Kubernetes would."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "headrace"
NAMESPACE = "ai"

Values = Mapping[str, Any]
"""What a user gives: ``values.yaml`` or ``--set``."""
Manifest = dict[str, Any]

_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "namespace": {"type": "string"}, "labels": _TEXTS},
}
_DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}


def _resource(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"const": "monitoring.coreos.com/v1"},
            "kind": {"type": "string"},
            "metadata": _METADATA,
            "spec": {"type": "object", "additionalProperties": False, **spec},
        },
    }


OF_THE_OPERATOR = {
    "ServiceMonitor": _resource(
        {
            "required": ["selector", "endpoints"],
            "properties": {
                "jobLabel": {"type": "string"},
                "selector": {
                    "type": "object",
                    "required": ["matchLabels"],
                    "additionalProperties": False,
                    "properties": {"matchLabels": _TEXTS},
                },
                "namespaceSelector": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "any": {"type": "boolean"},
                        "matchNames": {"type": "array", "items": {"type": "string"}},
                    },
                },
                "endpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["port"],
                        "additionalProperties": False,
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string"},
                            "scheme": {"enum": ["http", "https"]},
                            "interval": _DURATION,
                            "scrapeTimeout": _DURATION,
                        },
                    },
                },
            },
        }
    ),
    "PrometheusRule": _resource(
        {
            "required": ["groups"],
            "properties": {
                "groups": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name", "rules"],
                        "additionalProperties": False,
                        "properties": {
                            "name": {"type": "string", "minLength": 1},
                            "interval": _DURATION,
                            "rules": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": ["expr"],
                                    "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
                                    "additionalProperties": False,
                                    "properties": {
                                        "alert": {"type": "string"},
                                        "record": {"type": "string"},
                                        "expr": {"type": "string"},
                                        "for": _DURATION,
                                        "labels": _TEXTS,
                                        "annotations": _TEXTS,
                                    },
                                },
                            },
                        },
                    },
                }
            },
        }
    ),
}
"""The kinds that Kubernetes does not have, but the Prometheus operator adds: the fields that the chart uses, as the
operator's API reference describes them (monitoring.coreos.com/v1, read on 2026-11-30). The operator's own definitions
have many more, and are not part of this repository."""


class Rendered:
    """What Helm makes of the chart.

    Attributes:
        objects: what is applied to the cluster.
        notes: what the user is shown.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self.objects: list[Manifest] = [
            manifest
            for name, text in sorted(files.items())
            if name.endswith(".yaml")
            for manifest in yaml.safe_load_all(text)
            if manifest
        ]
        self.notes = next(text for name, text in files.items() if name.endswith("NOTES.txt"))

    @property
    def kinds(self) -> list[str]:
        """The kinds of all objects."""
        return sorted(one["kind"] for one in self.objects)

    def maybe_one(self, kind: str, name: str | None = None) -> Manifest | None:
        """Return the object of a kind, and of a name if there are several; None if there is none."""
        found = [one for one in self.objects if one["kind"] == kind and name in (None, one["metadata"]["name"])]
        assert len(found) <= 1, f"{len(found)} objects of kind {kind}"
        return found[0] if found else None

    def one(self, kind: str, name: str | None = None) -> Manifest:
        """Return the object of a kind, which must exist."""
        found = self.maybe_one(kind, name)
        assert found is not None, f"no {kind} among {self.kinds}"
        return found

    @property
    def pod(self) -> Manifest:
        """The template of the pods."""
        template: Manifest = self.one("Deployment")["spec"]["template"]
        return template

    @property
    def container(self) -> Manifest:
        """The only container."""
        (container,) = self.pod["spec"]["containers"]
        found: Manifest = container
        return found

    @property
    def config(self) -> Manifest:
        """The content of config.yaml."""
        found: Manifest = yaml.safe_load(self.one("ConfigMap")["data"]["config.yaml"])
        return found


@cache
def helm() -> Any:
    """Return the module of Helm, without its remarks about the link to the rules."""
    module = importlib.import_module("helm_python")
    module.disable_logging()
    return module


@cache
def _chart() -> Any:
    return helm().Chart.load(CHART)


def render(values: Values, *, name: str = "headrace") -> Rendered:
    """Return what a release of the chart consists of, as of ``helm install NAME``.

    Raises:
        HelmError: if the values are refused.
    """
    return Rendered(_chart().render(dict(values), name=name, namespace=NAMESPACE))


def refusal_of(values: Values) -> str:
    """Return why values are refused."""
    try:
        render(values)
    except helm().HelmError as error:
        return str(error)
    raise AssertionError("the values are accepted")


def check_object(manifest: Manifest, versions: Sequence[str]) -> None:
    """Assert that an object is what the schemas of these versions of Kubernetes allow, and has no unknown field."""
    if (schema := OF_THE_OPERATOR.get(manifest["kind"])) is not None:
        jsonschema.validate(manifest, schema)
        return
    validator = importlib.import_module("kubernetes_validate")
    for version in versions:
        assert validator.validate(manifest, version, strict=True) == version
