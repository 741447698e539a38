"""What deploy/ says, as objects, and what of them must be alike."""

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.kubernetes.cluster import Cluster

Object = dict[str, Any]
ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
_HELM = ROOT / "build" / "helm" / "bin" / "python"
_OF_HELM = ("app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart")


def written() -> Iterator[Object]:
    """Every object of the folder for kustomize, as it is written."""
    for file in sorted((DEPLOY / "kubernetes").rglob("*.yaml")):
        if file.name != "kustomization.yaml":
            yield from parsed(file.read_text())


def parsed(text: str) -> Iterator[Object]:
    yield from (thing for thing in yaml.safe_load_all(text) if thing)


def overlay(kubernetes: Cluster, name: str) -> list[Object]:
    """What `kubectl apply --kustomize` would send."""
    return list(parsed(kubernetes.kubectl("kustomize", str(DEPLOY / "kubernetes" / "overlays" / name))))


def chart(values: Mapping[str, object]) -> list[Object]:
    """What `helm install skep` would send."""
    assert _HELM.exists(), "Helm is missing: scripts/install --kubernetes"
    words = [str(DEPLOY / "helm" / "skep"), "skep", json.dumps(values)]
    done = subprocess.run(
        [_HELM, Path(__file__).with_name("render_chart.py"), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files: dict[str, str] = json.loads(done.stdout)
    return [thing for name, text in files.items() if name.endswith(".yaml") for thing in parsed(text)]


def alike(things: Iterable[Object]) -> dict[tuple[str, str], Object]:
    """By kind and name, without what kustomize and Helm each have ways of their own for.

    That is the names of what is made anew with each change (ConfigMap, Job), and labels that Helm adds.
    """
    found: dict[tuple[str, str], Object] = {}
    for thing in map(deepcopy, things):
        kind, metadata = thing["kind"], thing["metadata"]
        if kind in ("ConfigMap", "Job"):
            metadata["name"] = kind.lower()
        if kind == "ConfigMap":  # kustomize's own has neither labels nor annotations
            metadata = thing["metadata"] = {"name": metadata["name"]}
        metadata.pop("namespace", None)
        _simplify(metadata)
        for template in _templates(thing):
            _simplify(template["metadata"])
            template["metadata"].pop("annotations", None)
            for container in template["spec"]["containers"]:
                for source in container.get("envFrom", []):
                    source["configMapRef"]["name"] = "configmap"
        found[kind, metadata["name"]] = thing
    return found


def pods(things: Iterable[Object]) -> Iterator[tuple[str, Object]]:
    """What makes pods, by name, with what it makes."""
    for thing in things:
        for template in _templates(thing):
            yield thing["metadata"]["name"], template["spec"]


def _templates(thing: Object) -> list[Object]:
    template = thing.get("spec", {}).get("template")
    return [template] if template else []


def _simplify(metadata: Object) -> None:
    labels = metadata.pop("labels", {})
    metadata["labels"] = {key: value for key, value in labels.items() if key not in _OF_HELM}
    if metadata["labels"].get("app.kubernetes.io/component") == "network":
        del metadata["labels"]["app.kubernetes.io/component"]
