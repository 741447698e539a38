"""Pictures of flows as answers."""

from typing import Any

from litestar import Response

from skep.model.views.flows import DrawnView

SVG = "image/svg+xml"
_TYPES = {"svg": SVG, "mermaid": "text/vnd.mermaid; charset=utf-8", "text": "text/plain; charset=utf-8"}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""A picture that somebody opens in a browser shows, and does nothing else."""


def drawn(view: DrawnView) -> Response[Any]:
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
    return Response(view.content.encode(), media_type=_TYPES[view.format], headers=headers)
