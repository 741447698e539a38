"""The server of this machine: `skep up`, `down`, `purge`, `status`.

The server is `python -m skep.main`, always a process of its own.  Where systemd runs the machine and knows
`skep.service`, systemd starts and stops it; otherwise `up` leaves it behind as a daemon.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.names import complete_app
from skep.cli.output import confirm, document, say
from skep.cli.settings import local_token_file, local_url, server_setting

if TYPE_CHECKING:
    import ssl

_PATIENCE = 60.0
_PATIENCE_AT_END = 20.0
_UNIT = "skep.service"
_MAIN = [sys.executable, "-m", "skep.main"]


def up(
    *,
    data: Path | None = None,
    listen: str | None = None,
    hosts: int | None = None,
    zones: int | None = None,
    foreground: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Start the server of this machine and wait until it answers. Starting it twice is fine.

    With `--hosts` it is a data centre in a box: that many hosts are made on this machine, each with network
    namespaces, an address and an agent of its own.

    Examples: `skep up`; `skep up --data /srv/skep --foreground`; `skep up --hosts 6 --zones 3`

    Parameters
    ----------
    data
        Directory for disks, images and state; by default /var/lib/skep.
    listen
        Address and port of the API; by default 127.0.0.1:7537.
    hosts
        Make so many hosts on this machine. Later starts remember it.
    zones
        Spread them over so many zones; by default one.
    foreground
        Stay in this terminal; Ctrl-C stops the server, containers go on.
    """
    environment = _environment(data, listen, hosts, zones)
    if foreground:
        sys.stdout.flush()
        os.execve(sys.executable, [*_MAIN, "up", "--foreground"], environment)  # noqa: S606
    began = time.monotonic()
    url = local_url(environment)
    if _ready(url):
        if _grows(environment, hosts, zones):
            _need_root()
            _end_server()
            _wait(url, _daemon(environment), began)
        else:
            say("skep is up already.")
    elif _systemd() and not (data or listen or hosts):
        _run(["systemctl", "start", _UNIT])
        _wait(url, None, began)
    else:
        _need_root()
        _wait(url, _daemon(environment), began)
    took = time.monotonic() - began
    print(f"URL:    {url}")
    print(f"Token:  {local_token_file(environment)}")
    print(f"Took:   {took:.1f} s")
    return Exit.OK


def down() -> int:
    """Stop the server and its containers. Data stays; `skep up` brings everything back.

    Example: `skep down`
    """
    _need_root()
    if _systemd():
        _run(["systemctl", "stop", _UNIT])
    _end_server()
    return _child("down", "skep is down; data stays.")


def purge(*, yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=())] = False) -> int:
    """Remove everything of skep from this machine: containers, networks, disks, images, state.

    What it has in Kubernetes clusters is deleted, too, unless its database is elsewhere.

    Example: `skep purge --yes`

    Parameters
    ----------
    yes
        Do not ask.
    """
    _need_root()
    confirm("Remove all of skep with all data of all tenants?", yes)
    if _systemd():
        _run(["systemctl", "stop", _UNIT])
    _end_server()
    return _child("purge", "skep is gone from this machine, with all data.")


def status(
    app: Annotated[str | None, Parameter(completer=complete_app)] = None, /, *, common: Common = DEFAULT
) -> int:
    """Show whether the server is up (exit code 6 when it is not), or how an app is.

    Of an app: its last release, and what is not as that release says, with what becomes of it. Exit code 1
    when there is something.

    Examples: `skep status`; `skep status shop`

    Parameters
    ----------
    app
        Name of the app.
    """
    if app is not None:
        from skep.cli.rollouts import show_status

        return show_status(app, common)
    from skep.cli.client import Client
    from skep.cli.settings import resolve
    from skep.model.views.system import VersionView

    context = resolve(common.url, common.token, common.tenant)
    ready = _ready(context.url)
    version = Client(context).get("/v1", VersionView).version if ready else ""
    if common.output != "table":
        document({"url": context.url, "ready": ready, "version": version}, common.output)
    elif ready:
        print(f"skep {version} is up at {context.url}")
    else:
        print(f"skep is not up at {context.url}")
    return Exit.OK if ready else Exit.UNREACHABLE


def _grows(environment: dict[str, str], hosts: int | None, zones: int | None) -> bool:
    """Whether the box that is up is to have more hosts: control is started anew, hosts go on.

    Raises:
        Failure: that cannot be had of what is up.
    """
    if hosts is None and zones is None:
        return False
    path = Path(server_setting("data", "/var/lib/skep", environment)) / "box.json"
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Failure(
            "skep is up already, and it is no box: its host is this machine.",
            Exit.CONFLICT,
            "A box is an installation of its own: SKEP_INSTANCE, SKEP_DATA, SKEP_RUN, SKEP_ETC, SKEP_LISTEN.",
        ) from error
    if zones not in (None, known["zones"]) or (hosts is not None and hosts < known["hosts"]):
        raise Failure(
            f"The box that is up has {known['hosts']} hosts in {known['zones']} zones: it can get more "
            "hosts, but not fewer, nor other zones.",
            Exit.CONFLICT,
            "skep host drain and skep host rm take hosts out of it.",
        )
    return hosts is not None and hosts > known["hosts"]


def _environment(
    data: Path | None, listen: str | None, hosts: int | None, zones: int | None
) -> dict[str, str]:
    """What the server reads; options go before the environment."""
    extra = {"SKEP_DATA": str(data.absolute())} if data else {}
    extra |= {"SKEP_LISTEN": listen} if listen else {}
    extra |= {"SKEP_BOX_HOSTS": str(hosts)} if hosts is not None else {}
    extra |= {"SKEP_BOX_ZONES": str(zones)} if zones is not None else {}
    return {**os.environ, **extra}


def _daemon(environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """The server in a session of its own, writing to the log."""
    path = _log_file(environment)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
        return subprocess.Popen(
            [*_MAIN, "up", "--foreground"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )


def _wait(url: str, child: "subprocess.Popen[bytes] | None", began: float) -> None:
    shown = 0
    while not _ready(url):
        elapsed = time.monotonic() - began
        if child is not None and child.poll() is not None:
            raise Failure(f"The server ended with code {child.returncode}.\n{_tail()}", Exit.FAILED, _where())
        if elapsed > _PATIENCE:
            raise Failure(f"The server did not answer within {_PATIENCE:.0f} s.", Exit.UNREACHABLE, _where())
        if int(elapsed) > shown:
            shown = int(elapsed)
            say(f"Waiting for {url} … {shown} s")
        time.sleep(0.05)


def _ready(url: str) -> bool:
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    scheme, _, rest = url.partition("://")
    plain = scheme != "https"
    connection = (
        HTTPConnection(rest, timeout=2) if plain else HTTPSConnection(rest, timeout=2, context=_blind())
    )
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _blind() -> "ssl.SSLContext":
    """Whether anybody answers is all that is asked, and nothing secret is sent."""
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _end_server() -> None:
    """SIGTERM to the server and wait; one that hangs is killed, which it is made to survive."""
    pid = _server_pid()
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE_AT_END
    while _server_pid() == pid:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _server_pid() -> int | None:
    """The process that the pid file names, if that is a server and not a later process with its number."""
    path = Path(server_setting("run", "/run/skep")) / "skep.pid"
    try:
        pid = int(path.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"skep.main" in command else None


def _child(verb: str, word: str) -> int:
    """Have the server's own code do it; answers its exit code."""
    code = subprocess.run([*_MAIN, verb], check=False).returncode
    if code == 0:
        say(word)
    return code


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}", Exit.FAILED, f"journalctl -u {_UNIT}")


def _systemd() -> bool:
    """Whether systemd runs this machine and looks after skep."""
    if not Path("/run/systemd/system").is_dir():
        return False
    return subprocess.run(["systemctl", "cat", _UNIT], check=False, capture_output=True).returncode == 0


def _need_root() -> None:
    if os.geteuid() != 0:
        raise Failure("This needs root.", Exit.AUTH, "Try it with sudo.")


def _log_file(environment: dict[str, str]) -> Path:
    return Path(environment.get("SKEP_LOG", "/var/log/skep")) / "skep.log"


def _tail() -> str:
    path = _log_file(dict(os.environ))
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-10:])
    except OSError:
        return ""


def _where() -> str:
    if _systemd():
        return f"journalctl -u {_UNIT} says more."
    return f"{_log_file(dict(os.environ))} says more."
