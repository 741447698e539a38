"""Steps that bring images in: pulled, built, imported or made."""

import msgspec

from skep.control.flows.environment import Cloud, OnHost
from skep.flow import step
from skep.model.errors import InvalidInput, NotFound
from skep.model.ids import ContainerId, Digest, ImageId, ReleaseId, new_id
from skep.model.images import BuildSpec, ImageInfo, RegistryCredentials
from skep.model.names import ServiceName
from skep.model.references import for_registry, normalize
from skep.store import images, releases
from skep.store.images import ImageRow


@step(retry=2, timeout=1800)
async def pull(cx: OnHost, reference: str, upload: str) -> ImageInfo:
    """Fetch the image from its registry; `upload` names the spooled credentials, "" for none."""
    credentials = None
    if upload:
        credentials = msgspec.json.decode(await cx.env.host.spool.read(upload), type=RegistryCredentials)
    return await cx.env.host.images.pull(for_registry(reference), credentials, cx.progress)


@step(timeout=3600)
async def build(cx: OnHost, upload: str, reference: str, build: BuildSpec) -> dict[str, ImageInfo]:
    """Run the Dockerfile in the uploaded context; answers the image, and what had to be pulled for it.

    `build.bases` are the images the tenant may build on; others that the Dockerfile names are pulled.
    """
    store = cx.env.host.images
    async with store.context(await cx.env.host.spool.path(upload)) as context:
        pulled: dict[str, ImageInfo] = {}
        bases: dict[str, Digest] = {}
        for written in await store.bases(context, build):
            name = normalize(written)
            if name in build.bases:
                await cx.env.sources.ensure(build.bases[name], cx.env.name)
            elif name not in pulled:
                cx.progress(f"pulling {name}")
                pulled[name] = await store.pull(for_registry(name), None, cx.progress)
            bases[written] = build.bases.get(name) or pulled[name].digest
        image = await store.build(context, msgspec.structs.replace(build, bases=bases), cx.progress)
    return pulled | {reference: image}


@step(timeout=3600)
async def load(cx: OnHost, upload: str, reference: str) -> dict[str, ImageInfo]:
    """Import the uploaded archive; `reference` names what has no name of its own (or the only image).

    Raises:
        InvalidInput: an image without a name, and none was given.
    """
    found = await cx.env.host.images.load(await cx.env.host.spool.path(upload), cx.progress)
    if reference:
        if len(found) != 1:
            raise InvalidInput(
                f"The archive holds {len(found)} images; import it without a name of your own."
            )
        return {reference: next(iter(found.values()))}
    if "" in found:
        raise InvalidInput("The archive does not name its image; say 'skep image import FILE NAME:TAG'.")
    return found


@step(timeout=3600)
async def bootstrap(cx: OnHost, suite: str) -> ImageInfo:
    """Make a Debian base image."""
    return await cx.env.host.images.bootstrap(suite, cx.progress)


@step(kind="transactional")
async def record(cx: Cloud, tenant: str, reference: str, image: ImageInfo) -> Digest:
    """Let the tenant's reference point at the image; tenant "" shares it with everybody."""
    await _record(cx, tenant, reference, image)
    return image.digest


@step(kind="transactional")
async def record_all(cx: Cloud, tenant: str, found: dict[str, ImageInfo]) -> list[str]:
    for reference, image in found.items():
        await _record(cx, tenant, reference, image)
    return sorted(found)


@step(kind="transactional")
async def settle(cx: Cloud, release: ReleaseId, service: str, image: ImageInfo) -> None:
    """A pulled image belongs to the tenant and to the release that asked for it."""
    row = await releases.get(cx.tx, release)
    if row is None:
        raise NotFound(f"Release {release} is gone.")
    await _record(cx, row.tenant_id, row.spec.services[ServiceName(service)].image, image)
    await releases.set_images(cx.tx, release, row.images | {service: image})


@step(retry=4)  # who has it may not answer for a moment
async def unpack(cx: OnHost, container: ContainerId) -> None:
    """Unpack the image's layers on the host, brought from another host if need be."""
    spec = await cx.env.desired.container(container)
    try:
        await cx.env.host.images.unpack(spec.image)
    except NotFound:
        cx.progress(f"bringing the image of {spec.name} to this host")
        await cx.env.sources.ensure(spec.image, cx.env.name)
        await cx.env.host.images.unpack(spec.image)


@step
async def hold(cx: OnHost, upload: str) -> None:
    """Keep an upload for this run; undone, it is thrown away."""


@hold.undo
async def _discard_held(cx: OnHost, upload: str) -> None:
    await _discard(cx, upload)


@step
async def discard(cx: OnHost, upload: str) -> None:
    """The upload is no longer needed."""
    await _discard(cx, upload)


async def _discard(cx: OnHost, upload: str) -> None:
    if upload:
        await cx.env.host.spool.discard(upload)


async def _record(cx: Cloud, tenant: str, reference: str, image: ImageInfo) -> None:
    row = ImageRow(
        id=ImageId(new_id()),
        tenant_id=tenant,
        reference=reference,
        digest=image.digest,
        info=image,
        created=cx.env.now(),
    )
    await images.save(cx.tx, row)
