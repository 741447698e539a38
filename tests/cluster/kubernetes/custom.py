"""Kinds that clusters do not have by themselves: the definitions of custom resources.  Pure."""

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]
"""Of Kubernetes, as its API has it."""
ANYTHING: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def definition(
    api: tuple[str, str],
    plural: str,
    kind: str,
    scope: str,
    schema: Object = ANYTHING,
    *,
    notes: Mapping[str, str] | None = None,
    status: bool = False,
) -> Object:
    """`api`: group and version.  `status`: it has one apart from the rest."""
    group, name = api
    version = {"name": name, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"} | ({"annotations": dict(notes)} if notes else {}),
        "spec": {
            "group": group,
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "scope": scope,
            "versions": [version | ({"subresources": {"status": {}}} if status else {})],
        },
    }
