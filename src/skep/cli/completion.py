"""`skep completion`."""

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script that completes commands, options, and the names of apps and replicas.

    Example: `skep completion bash > /etc/bash_completion.d/skep`

    Parameters
    ----------
    shell
        The shell.
    """
    from skep.cli.app import build

    print(build().generate_completion(prog_name="skep", shell=shell))
