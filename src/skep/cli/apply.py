"""`skep apply` and its relatives: from Compose files to a running app."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from skep.cli.apps import tally
from skep.cli.client import Client
from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.follow import finish
from skep.cli.output import document, say, warn
from skep.cli.project import DEFAULT_PROJECT, ProjectOptions, load
from skep.model.images import BuildSpec
from skep.model.spec import AppSpec
from skep.model.views.apps import AppDetail
from skep.model.views.base import Accepted

if TYPE_CHECKING:
    from skep.compose import Project
    from skep.compose.project import Build


@Parameter(name="*")
@dataclass(frozen=True)
class ApplyOptions:
    """How to go about it."""

    build: bool = True
    """Build the images of services with `build:`; what has not changed comes from the cache."""
    pull: bool = False
    """Fetch images again even when they are there."""
    force_recreate: Annotated[bool, Parameter(negative=())] = False
    """Make every replica anew, changed or not."""
    note: Annotated[str, Parameter(name=["--note", "-m"])] = ""
    """Why, in words; shown by `skep releases`."""
    wait: bool = True
    """Follow the work to its end."""
    dry_run: Annotated[bool, Parameter(negative=())] = False
    """Show what would change and do nothing."""
    plan: Path | None = None
    """Carry out the plan in this file (`skep plan --out`) and nothing else; refused if it is stale."""


def apply(
    *files: Path,
    project: ProjectOptions = DEFAULT_PROJECT,
    options: ApplyOptions = ApplyOptions(),
    common: Common = DEFAULT,
) -> None:
    """Make the app as its Compose file says.

    Builds what has `build:`, lets the server pull what is missing, releases the app, and follows the work
    until every replica is ready. Ctrl-C stops following; the work goes on.

    Examples: `skep apply` in the directory of compose.yaml; `skep apply examples/shop/compose.yaml -p shop`;
    `skep apply --plan shop.plan`

    Parameters
    ----------
    files
        Compose files, or the directory of one; by default the one of this directory.
    """
    if options.plan is not None:
        _apply_plan(options.plan, options, common)
        return
    loaded = load(files, project)
    client = common.connect()
    if options.dry_run:
        from skep.cli import plans

        plans.print_plan(plans.of(client, _spec(loaded)), common)
        return
    _make_images(client, loaded, options)
    _release(client, _spec(loaded), options, common)


def _apply_plan(file: Path, options: ApplyOptions, common: Common) -> None:
    from skep.cli import plans

    planned = plans.read(file)
    if options.dry_run or options.force_recreate:
        raise Failure("A plan is carried out as it is, or not at all.", Exit.INVALID)
    _release(common.connect(), planned.spec, options, common, planned.mark)


def _release(
    client: Client, spec: AppSpec, options: ApplyOptions, common: Common, mark: str | None = None
) -> None:
    accepted = client.post(
        f"/v1/apps/{spec.name}/releases",
        Accepted,
        spec,
        force_recreate=options.force_recreate,
        note=options.note or None,
        mark=mark,
    )
    finish(client, accepted, wait=options.wait)
    if options.wait:
        _show_result(client, spec.name, common)


def plan(
    *files: Path,
    project: ProjectOptions = DEFAULT_PROJECT,
    out: Path | None = None,
    common: Common = DEFAULT,
) -> None:
    """Show what apply would change, in which order, who notices, and what it takes. Nothing is done.

    Examples: `skep plan`; `skep plan --out shop.plan && skep apply --plan shop.plan`

    Parameters
    ----------
    files
        Compose files, or the directory of one.
    out
        Write the plan to this file, for `skep apply --plan`. Secrets are in it.
    """
    from skep.cli import plans

    loaded = load(files, project)
    spec, builds = _spec(loaded), _builds(loaded)
    planned = plans.with_builds(plans.of(common.connect(), spec), builds)
    plans.print_plan(planned, common)
    if out is not None:
        plans.must_be_built(planned, builds)
        plans.write(out, spec, planned.mark)


def config(
    *files: Path,
    project: ProjectOptions = DEFAULT_PROJECT,
    common: Common = DEFAULT,
) -> None:
    """Print what the Compose file comes to: variables replaced, files merged, as the API takes it.

    Configs and secrets are printed with their contents, in base64.

    Example: `skep config -o json`

    Parameters
    ----------
    files
        Compose files, or the directory of one.
    """
    document(_spec(load(files, project)), "yaml" if common.output == "table" else common.output)


def build(*files: Path, project: ProjectOptions = DEFAULT_PROJECT, common: Common = DEFAULT) -> None:
    """Build the images of all services that have `build:`.

    Example: `skep build`

    Parameters
    ----------
    files
        Compose files, or the directory of one.
    """
    loaded = load(files, project)
    client = common.connect()
    builds = _builds(loaded)
    if not builds:
        say("No service has `build:`; nothing to do.")
    for reference, one in builds.items():
        build_one(client, one, reference)


def build_one(client: Client, one: "Build", reference: str) -> None:
    """Send the context and follow the build."""
    from skep.cli.build_context import Context

    if one.tags:
        warn(f"{reference}: build.tags are not given to the image.")
    context = Context(one.context, one.dockerfile, one.dockerfile_inline)
    spec = BuildSpec(
        dockerfile=context.dockerfile,
        args=one.args,
        target=one.target,
        labels=one.labels,
        no_cache=one.no_cache,
    )
    say(f"Building {reference}")
    accepted = client.upload("/v1/images/build", Accepted, context.stream(), build=spec, reference=reference)
    finish(client, accepted)


def tagged(reference: str) -> str:
    """The reference with a tag or digest; `latest` is what Compose means by none."""
    last = reference.rpartition("/")[2]
    return reference if ":" in last or "@" in reference else f"{reference}:latest"


def _spec(project: "Project") -> AppSpec:
    from skep.compose import ComposeError, to_app_spec

    images = {name: tagged(one.spec.image) for name, one in project.services.items() if one.build}
    try:
        return to_app_spec(project, images)
    except ComposeError as error:
        raise Failure(str(error), Exit.INVALID) from error


def _builds(project: "Project") -> dict[str, "Build"]:
    """What to build by reference; services that share an image share its build."""
    return {tagged(one.spec.image): one.build for one in project.services.values() if one.build}


def _make_images(client: Client, project: "Project", options: ApplyOptions) -> None:
    if options.build:
        for reference, one in _builds(project).items():
            build_one(client, one, reference)
    fetched = {
        one.spec.image
        for one in project.services.values()
        if not one.build and (options.pull or one.pull_policy == "always")
    }
    for reference in sorted(fetched):
        say(f"Pulling {reference}")
        finish(client, client.post("/v1/images/pull", Accepted, {"reference": reference}))


def _show_result(client: Client, app: str, common: Common) -> None:
    detail = client.get(f"/v1/apps/{app}", AppDetail)
    if common.output != "table":
        document(detail.app, common.output)
        return
    say(f"{app} is {detail.app.state.value}: {tally(detail.app, 'replicas run')}.")
    for url in detail.app.urls:
        print(url)
