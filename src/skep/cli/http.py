"""httpx as far as commands use it.

Where click and h2 are installed it brings a command line of its own (`httpx[cli]`), with rich and pygments,
and HTTP/2 (`httpx[http2]`): half of what it takes.  It does without what is not there.
"""

import sys

_NEEDLESS = ("click", "h2")
_hidden = {name: sys.modules.get(name) for name in _NEEDLESS}
sys.modules |= dict.fromkeys(_NEEDLESS)  # type: ignore[arg-type] # None: as Python says that there is none
try:
    import httpcore  # noqa: F401 - what httpx stands on, which it imports later
    import httpx
finally:
    for _name, _module in _hidden.items():
        del sys.modules[_name]
        if _module is not None:
            sys.modules[_name] = _module

__all__ = ["httpx"]
