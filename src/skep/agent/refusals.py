"""What a runtime's refusal means, in the words of the person who wrote the Compose file.  Pure."""

import errno
import re

from skep.model.errors import HostFailure, InvalidInput, SkepError
from skep.model.host import ContainerSpec
from skep.providers.local.bundle import DEFAULT_PATH

_ABSENT = re.compile(r'exec: "?.*"?: .*(executable file not found|no such file or directory)')
_NO_RIGHT = re.compile(r'exec: "?.*"?: .*(permission denied|is a directory)')
_DIRECTORY = re.compile(r"chdir to cwd|mkdir .*: (not a directory|file exists)")
_MOUNT = re.compile(r'error mounting "[^"]*" to rootfs at "(?P<target>[^"]+)".*?(?P<reason>[a-z ]+)$')


def explain(spec: ContainerSpec, said: str) -> SkepError:
    """The error to raise when the runtime refused to make or start the container."""
    last = said.strip().splitlines()[-1] if said.strip() else "no reason given"
    program = spec.args[0] if spec.args else ""
    if _ABSENT.search(last):
        where = "" if "/" in program else f" (looked in PATH {_path(spec)})"
        return InvalidInput(f"{spec.name}: the image has no program '{program}'{where}.")
    if _NO_RIGHT.search(last):
        return InvalidInput(f"{spec.name}: '{program}' in the image cannot be executed.")
    if _DIRECTORY.search(last):
        return InvalidInput(f"{spec.name}: the working directory '{spec.working_dir}' cannot be entered.")
    if (mount := _MOUNT.search(last)) and "not a directory" in last:
        return InvalidInput(
            f"{spec.name}: nothing can be mounted at '{mount['target']}': a file and a directory meet there."
        )
    return HostFailure(f"{spec.name}: the container does not start: {last[-500:]}")


def host_failure(spec: ContainerSpec, error: OSError) -> SkepError:
    """The error to raise when the kernel refused while the container was prepared."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostFailure(f"{spec.name}: the host has no room left{where}: {error.strerror}")
    return HostFailure(f"{spec.name}: the container cannot be prepared{where}: {error.strerror}")


def named(spec: ContainerSpec, error: SkepError) -> SkepError:
    """The same error, saying whose it is."""
    if error.message.startswith(spec.name):
        return error
    return type(error)(f"{spec.name}: {error.message}", **error.details)


def _path(spec: ContainerSpec) -> str:
    return spec.environment.get("PATH", DEFAULT_PATH)
