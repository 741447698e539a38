"""Further processes in a container: what `exec` and health checks run."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from skep.agent.exec import ExecFiles, LocalExec, begin
from skep.agent.probes import command
from skep.model.errors import Conflict, InvalidInput, SkepError
from skep.model.host import ContainerSpec, ExecSpec
from skep.model.spec import HealthCheck
from skep.providers.local.accounts import Accounts
from skep.providers.local.bundle import capability_section, capability_set, user_section
from skep.providers.local.runtime import Runtime

_OUTPUT = 4096


class ProcessMaker:
    """Describes a process to the runtime, starting from how the container's own one was described."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._numbers = count()

    async def start(self, container: ContainerSpec, spec: ExecSpec) -> LocalExec:
        """Raises InvalidInput: no such user.  Conflict: the container is gone."""
        if not spec.args:
            raise InvalidInput(f"{container.name}: name a program to run.")
        bundle = self._runtime.bundle(container.id)
        try:
            # In a thread: the image's account files may be megabytes.
            process = await asyncio.to_thread(self._describe, container, spec, bundle)
            files = ExecFiles(bundle / "exec", f"{next(self._numbers)}")
            files.process.write_bytes(msgspec.json.encode(process))
        except FileNotFoundError as error:
            raise Conflict(f"{container.name} does not run.") from error
        run = self._runtime.exec_command(container.id, files.process, files.pid, files.log, tty=spec.tty)
        return begin(
            run,
            container=container.id,
            cgroups=self._runtime.cgroups,
            files=files,
            stdin=spec.stdin,
            size=(spec.columns, spec.rows) if spec.tty else None,
        )

    def _describe(self, container: ContainerSpec, spec: ExecSpec, bundle: Path) -> dict[str, Any]:
        own: dict[str, Any] = msgspec.json.decode((bundle / "config.json").read_bytes())["process"]
        changes: dict[str, Any] = {"args": list(spec.args), "terminal": spec.tty}
        terminal = {"TERM": "xterm"} if spec.tty else {}
        variables = dict(entry.split("=", 1) for entry in own["env"])
        variables = terminal | variables | spec.environment
        if spec.working_dir:
            changes["cwd"] = spec.working_dir
        if spec.user is not None:
            identity = Accounts.of(bundle / "rootfs").identify(spec.user)
            capabilities = capability_set(container, self._runtime.host)
            changes["user"] = user_section(identity)
            changes["capabilities"] = capability_section(capabilities, identity.uid)
            variables["HOME"] = identity.home
        changes["env"] = [f"{name}={value}" for name, value in variables.items()]
        return own | changes


async def check(
    start: Callable[[ExecSpec], Awaitable[LocalExec]],
    healthcheck: HealthCheck | None,
    timeout: float,  # noqa: ASYNC109 - it is the check's own, and its end is no error
) -> tuple[int | None, str]:
    """Run a health check; answer exit code (None: it took too long) and output.  Never raises."""
    try:
        session = await start(ExecSpec(args=command(healthcheck) or ()))
    except SkepError as error:
        return 1, error.message
    output = bytearray()
    try:
        async with asyncio.timeout(timeout or None):
            async for _, block in session.output():
                output += block[: _OUTPUT - len(output)]
            code = await session.wait()
    except TimeoutError:
        return None, output.decode(errors="replace")
    finally:
        await session.close()
    return code, output.decode(errors="replace")
