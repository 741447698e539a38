"""Image references: `name[:tag][@digest]`, in the short form people write.

`docker.io/library/redis` and `redis` mean the same image; skep keeps the short one (`redis:latest`) and
spells it out only towards a registry.
"""

import re

from skep.model.errors import InvalidInput

# The grammar of https://github.com/distribution/reference (`reference.go`).
_REFERENCE = re.compile(
    r"(?:(?P<domain>[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
    r"(?::\d+)?)/)?"
    r"(?P<path>[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
_HIDDEN_PREFIXES = ("docker.io/library/", "docker.io/", "index.docker.io/library/", "localhost/")


def normalize(reference: str) -> str:
    """The form skep stores: without the default registry, with a tag.

    Raises:
        InvalidInput: not an image reference.
    """
    match = _REFERENCE.fullmatch(reference) if len(reference) <= 400 else None
    if match is None:
        raise InvalidInput(
            f"{reference[:200]!r} is not an image reference; expected something like 'redis:7' or "
            "'registry.example.org/team/app:1.2'."
        )
    for prefix in _HIDDEN_PREFIXES:
        reference = reference.removeprefix(prefix)
    return reference if match["tag"] or match["digest"] else f"{reference}:latest"


def for_registry(reference: str) -> str:
    """The full form a registry client wants: `docker.io/library/redis:latest`."""
    reference = normalize(reference)
    domain, slash, _ = reference.partition("/")
    if slash and ("." in domain or ":" in domain or domain == "localhost"):
        return reference
    return f"docker.io/{reference}" if slash else f"docker.io/library/{reference}"
