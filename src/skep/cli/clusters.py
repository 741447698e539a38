"""`skep cluster`: Kubernetes clusters that zones may stand on."""

import base64
import os
from pathlib import Path
from typing import Annotated, Any

import yaml
from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.output import document, say, show
from skep.model.views.clusters import ClusterCheck, RightsView

app = App(name="cluster", help="Kubernetes clusters: check, rights.")

_FILES = ("certificate-authority", "client-certificate", "client-key")


@app.command
def check(
    *,
    kubeconfig: Annotated[Path | None, Parameter(env_var="KUBECONFIG")] = None,
    context: str | None = None,
    common: Common = DEFAULT,
) -> None:
    """Look what a Kubernetes cluster is good for as a zone. For admins.

    Nothing in the cluster is changed, and nothing of the kubeconfig is kept.  Exits with 1 if something is
    missing that a zone must have.

    Example: `skep cluster check --kubeconfig ~/.kube/config --context staging`

    Parameters
    ----------
    kubeconfig
        File that says where the cluster is and who asks; by default ~/.kube/config.
    context
        Which of its contexts; by default the current one.
    """
    body = {"kubeconfig": flat(kubeconfig or Path.home() / ".kube" / "config"), "context": context}
    found = common.connect().post("/v1/clusters/check", ClusterCheck, body)
    if common.output != "table":
        document(found, common.output)
    else:
        show_check(found)
    if not found.usable:
        raise Failure(f"{found.server} cannot be a zone as it is.", Exit.FAILED)


@app.command
def rights(*, common: Common = DEFAULT) -> None:
    """Print manifests that give skep's account in a cluster the rights it needs, and no others. For admins.

    Example: `skep cluster rights | kubectl apply -f -`
    """
    found = common.connect().get("/v1/clusters/rights", RightsView)
    if common.output != "table":
        document(found, common.output)
    else:
        print(found.manifest, end="")


def show_check(found: ClusterCheck) -> None:
    """A table of what works, and what can be done about the rest."""
    columns = [
        ("SUBJECT", lambda one: one.subject),
        ("VERDICT", lambda one: one.verdict),
        ("FOUND", lambda one: one.message),
    ]
    show(found.findings, columns, "table")
    for finding in found.findings:
        if finding.remedy and finding.verdict != "works":
            say(f"{finding.subject}: {finding.remedy}")


def flat(file: Path) -> str:
    """The kubeconfig with the content of the files that it names: the server has them not."""
    try:
        found = yaml.safe_load(file.read_text())
        for part in (found.get("clusters") or []) + (found.get("users") or []):
            _embed(part.get("cluster") or part.get("user") or {}, file.parent)
    except OSError as error:
        raise Failure(f"{error.filename}: {os.strerror(error.errno or 0)}.", Exit.INVALID) from None
    except (yaml.YAMLError, AttributeError, TypeError, UnicodeDecodeError):
        raise Failure(f"{file} is no kubeconfig.", Exit.INVALID) from None
    return yaml.safe_dump(found, sort_keys=False)


def _embed(part: dict[str, Any], folder: Path) -> None:
    for key in _FILES:
        if name := part.pop(key, None):
            part[f"{key}-data"] = base64.b64encode((folder / name).read_bytes()).decode()
