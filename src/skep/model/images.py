"""Images as the OCI image specification describes them (https://github.com/opencontainers/image-spec)."""

import msgspec

from skep.model.ids import Bytes, Digest


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the image says about the process to run (OCI image config, section `config`)."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = "/"
    user: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    stop_signal: str = ""
    healthcheck_test: tuple[str, ...] = ()
    healthcheck_interval: float = 30.0
    healthcheck_timeout: float = 30.0
    healthcheck_retries: int = 3
    healthcheck_start_period: float = 0.0


class ImageInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is in the store.  `digest` names its manifest; `layers` are diff ids, lowest first."""

    digest: Digest
    config: ImageConfig
    layers: tuple[Digest, ...]
    size: Bytes
    architecture: str = "amd64"
    created: str = ""


class RegistryCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """How to log in to a registry."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"RegistryCredentials(username={self.username!r}, password=…)"


class BuildSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One image build: a Dockerfile inside an uploaded context.

    `contexts` maps base image references to digests that are in the store already, so that a build
    resolves them there and never from a tenant that does not own them.
    """

    dockerfile: str = "Dockerfile"
    dockerfile_inline: str | None = None
    args: dict[str, str] = {}
    target: str | None = None
    labels: dict[str, str] = {}
    no_cache: bool = False
    bases: dict[str, Digest] = {}
    scope: str = "shared"
    """Whose build it is (a tenant's id): only builds of one scope share a layer cache."""
