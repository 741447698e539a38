"""Which server the command talks to, and as whom.

In order: the options --url, --token and --tenant; SKEP_URL, SKEP_TOKEN, SKEP_TENANT (and SKEP_CA, a file with
the certificates of the authority that vouches for the server); the current context of
`~/.config/skep/config.yaml`, which `skep login` writes; the server of this machine with its admin token.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from skep.cli.failures import Exit, Failure

LOCAL_LISTEN = "127.0.0.1:7537"


class Context(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One login."""

    url: str
    token: str = ""
    tenant: str = ""
    ca: str = ""
    """Certificates (PEM) of the authority that vouches for the server; empty: those of the system do."""


class Config(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The file: logins by name, and which of them counts."""

    current: str = ""
    contexts: dict[str, Context] = {}

    def with_login(self, name: str, context: Context) -> "Config":
        return Config(current=name, contexts={**self.contexts, name: context})


def config_path(environment: Mapping[str, str] = os.environ) -> Path:
    base = environment.get("XDG_CONFIG_HOME") or str(
        Path(environment.get("HOME", "~")).expanduser() / ".config"
    )
    return Path(base) / "skep" / "config.yaml"


def read_config(path: Path) -> Config:
    """The file, or an empty Config when there is none.

    Raises:
        Failure: it cannot be read as what it should be.
    """
    if not path.exists():
        return Config()
    import yaml

    try:
        data: Any = yaml.safe_load(path.read_text()) or {}
        return msgspec.convert(data, Config)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise Failure(f"{path} cannot be used: {error}", Exit.INVALID, "Repair it or remove it.") from error


def write_config(path: Path, config: Config) -> None:
    """Replace the file; only its owner may read it, since tokens are in it."""
    import yaml

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        yaml.safe_dump(msgspec.to_builtins(config), file, sort_keys=False)
    draft.replace(path)


def server_setting(key: str, default: str, environment: Mapping[str, str] = os.environ) -> str:
    """A key of this machine's server as that reads it: SKEP_KEY, its skep.yaml, or the default."""
    given = environment.get(f"SKEP_{key.upper()}")
    path = Path(environment.get("SKEP_ETC", "/etc/skep")) / "skep.yaml"
    if given or not os.access(path, os.R_OK):
        return given or default
    import yaml

    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return default  # the server says what is wrong with it
    return str(data.get(key, default)) if isinstance(data, dict) else default


def local_url(environment: Mapping[str, str] = os.environ) -> str:
    """Where this machine's server answers to this machine."""
    host, _, port = server_setting("listen", LOCAL_LISTEN, environment).rpartition(":")
    loopback = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}  # noqa: S104 - not bound here
    scheme = "https" if _served_with_tls(host, environment) else "http"
    return f"{scheme}://{loopback.get(host, host)}:{port}"


def _served_with_tls(host: str, environment: Mapping[str, str]) -> bool:
    """As the server decides it: on everywhere but on loopback, unless `tls` says otherwise."""
    chosen = server_setting("tls", "auto", environment)
    if chosen != "auto":
        return chosen in ("on", "True")  # YAML takes a bare `on` for a truth
    return not (host.startswith("127.") or host in ("localhost", "[::1]"))


def local_token_file(environment: Mapping[str, str] = os.environ) -> Path:
    given = server_setting("admin_token", "", environment)
    return Path(given or Path(environment.get("SKEP_ETC", "/etc/skep")) / "admin.token")


def resolve(
    url: str | None, token: str | None, tenant: str | None, environment: Mapping[str, str] = os.environ
) -> Context:
    """Join what was given (options and environment come in as one) with the file and the local server."""
    url = url or None
    config = read_config(config_path(environment))
    current = config.contexts.get(config.current) if url is None else _login_for(config, url)
    chosen = url or (current.url if current else local_url(environment))
    return Context(
        url=chosen.rstrip("/"),
        token=token or (current.token if current else _local_token(chosen, environment)),
        tenant=tenant or (current.tenant if current else ""),
        ca=_authority(chosen, current, environment),
    )


def _authority(url: str, login: Context | None, environment: Mapping[str, str]) -> str:
    """Of SKEP_CA, of the login, or what this machine's server left for the commands beside it."""
    given = environment.get("SKEP_CA")
    if given:
        return _read(Path(given))
    if login is not None or not url.startswith("https:") or url.rstrip("/") != local_url(environment):
        return login.ca if login else ""
    path = local_authority_file(environment)
    return _read(path) if path.exists() else ""


def local_authority_file(environment: Mapping[str, str] = os.environ) -> Path:
    return Path(environment.get("SKEP_ETC", "/etc/skep")) / "authority.pem"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read: {error}", Exit.INVALID, "Look at SKEP_CA.") from error


def _login_for(config: Config, url: str) -> Context | None:
    wanted = url.rstrip("/")
    return next((one for one in config.contexts.values() if one.url == wanted), None)


def _local_token(url: str, environment: Mapping[str, str]) -> str:
    """The admin token of this machine's server; never sent to another one."""
    path = local_token_file(environment)
    if url.rstrip("/") != local_url(environment) or not os.access(path, os.R_OK):
        return ""
    return path.read_text().strip()
