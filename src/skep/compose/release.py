"""From a project to what is sent: nothing in it points at the client's files any more."""

from collections.abc import Mapping

from msgspec.structs import replace

from skep.compose.problems import ComposeError
from skep.compose.project import Project, Service
from skep.model.names import AppName, ServiceName
from skep.model.spec import AppSpec, ServiceSpec


def to_app_spec(project: Project, images: Mapping[str, str]) -> AppSpec:
    """The app as the API takes it.  `images` gives the reference built for each service with `build`.

    Raises:
        ComposeError: the image of a service with `build` is not among them.
    """
    return AppSpec(
        name=AppName(project.name),
        services={ServiceName(name): _spec(service, images) for name, service in project.services.items()},
        networks=project.networks,
        volumes=project.volumes,
        configs=project.configs,
        secrets=project.secrets,
        x_skep=project.x_skep,
    )


def _spec(service: Service, images: Mapping[str, str]) -> ServiceSpec:
    if service.build is None:
        return service.spec
    if service.name not in images:
        raise ComposeError(((service.position, f"services.{service.name}: its image has not been built"),))
    return replace(service.spec, image=images[service.name])
