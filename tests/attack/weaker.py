"""Ways to make a container weaker, each by one defence: changes of its OCI config."""

from pathlib import Path

from tests.attack.prison import Change, Config


def every(*changes: Change) -> Change:
    """Several at once, for an attack that more than one defence stops."""

    def change(config: Config) -> None:
        for one in changes:
            one(config)

    return change


def no_filter(config: Config) -> None:
    """Without seccomp."""
    del config["linux"]["seccomp"]


def writable(path: str) -> Change:
    """Without the read-only mount over a path below /proc."""
    return lambda config: config["linux"]["readonlyPaths"].remove(path)


def unmasked(path: str) -> Change:
    return lambda config: config["linux"]["maskedPaths"].remove(path)


def writable_mount(target: str) -> Change:
    """The mount at the target without `ro`."""

    def change(config: Config) -> None:
        (mount,) = [mount for mount in config["mounts"] if mount["destination"] == target]
        mount["options"].remove("ro")

    return change


def capability(*names: str) -> Change:
    """With capabilities that skep takes away."""

    def change(config: Config) -> None:
        for held in ("bounding", "effective", "permitted"):
            config["process"]["capabilities"][held] += [f"CAP_{name}" for name in names]

    return change


def device(kind: str, major: int, minor: int) -> Change:
    """With a device that the control group forbids."""
    rule = {"allow": True, "type": kind, "major": major, "minor": minor, "access": "rwm"}
    return lambda config: config["linux"]["resources"]["devices"].append(rule)


def shared(namespace: str) -> Change:
    """In the machine's own namespace of this kind."""

    def change(config: Config) -> None:
        config["linux"]["namespaces"] = [
            one for one in config["linux"]["namespaces"] if one["type"] != namespace
        ]

    return change


def network(path: Path) -> Change:
    """In another network namespace."""

    def change(config: Config) -> None:
        (one,) = [one for one in config["linux"]["namespaces"] if one["type"] == "network"]
        one["path"] = str(path)

    return change


def new_privileges(config: Config) -> None:
    config["process"]["noNewPrivileges"] = False


def user(uid: int) -> Change:
    """Not weaker: as another user, without capabilities."""

    def change(config: Config) -> None:
        config["process"]["user"] = {"uid": uid, "gid": uid}
        for held in ("effective", "permitted"):
            config["process"]["capabilities"][held] = []

    return change


def resource(*keys: str, value: object) -> Change:
    """Another limit of the control group; None takes it away."""

    def change(config: Config) -> None:
        *path, last = keys
        place = config["linux"]["resources"]
        for key in path:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return change
