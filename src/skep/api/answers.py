"""Answers that several resources share."""

from litestar import Response
from litestar.status_codes import HTTP_200_OK, HTTP_202_ACCEPTED

from skep.model.views.base import Accepted


def follow(accepted: Accepted) -> Response[Accepted]:
    """202 with the run to follow in `Location`, or 200 when there was nothing to do."""
    if accepted.run is None:
        return Response(accepted, status_code=HTTP_200_OK)
    headers = {"Location": f"/v1/runs/{accepted.run}"}
    return Response(accepted, status_code=HTTP_202_ACCEPTED, headers=headers)
