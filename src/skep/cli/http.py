"""httpx without a command line of its own, which it brings along where `click` is installed.

That one (`httpx[cli]`) imports click, rich and pygments: half of what httpx takes, and no command uses it.
"""

import sys

_hidden = sys.modules.get("click")
sys.modules["click"] = None  # type: ignore[assignment] # as Python says that there is none
try:
    import httpx
finally:
    del sys.modules["click"]
    if _hidden is not None:
        sys.modules["click"] = _hidden

__all__ = ["httpx"]
