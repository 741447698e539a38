"""The OpenAPI 3.1 document of the API.

Litestar derives it from the handlers: types give the schemas, docstrings the descriptions.  It is made from
an application of its own when first asked for, so that the one that serves keeps no schema in memory.  Added
here is what every operation has in common (problem answers) and the WebSocket, which OpenAPI has no word for.
"""

import inspect
from functools import cache
from typing import Any

import msgspec
from litestar import Litestar
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, License, SecurityScheme

from skep import __version__
from skep.api import exec_socket
from skep.api.errors import PROBLEM_JSON, Problem
from skep.api.routers import ROUTERS, dependencies

_DESCRIPTION = """\
Send `Authorization: Bearer TOKEN` with everything except version and health.  An admin acts in the tenant
named by the header `X-Skep-Tenant`.  Long work answers 202 with a run; follow `/v1/runs/{run}/events`.
Errors are problem documents (RFC 9457): `code` is for programs, `detail` for people.\
"""

_UPLOADS = ("/v1/images/import", "/v1/images/build", "/v1/bundles")
_UPLOAD = {"required": True, "content": {"application/octet-stream": {}}}


@cache
def document() -> bytes:
    """The document as JSON."""
    return msgspec.json.format(msgspec.json.encode(describe(), order="sorted"), indent=1)


def describe() -> dict[str, Any]:
    """The document as plain data."""
    app = Litestar(
        ROUTERS,
        openapi_config=_config(),
        dependencies=dependencies(None),
        logging_config=None,
    )
    described: dict[str, Any] = app.openapi_schema.to_schema()
    _add_problems(described)
    for path in _UPLOADS:
        described["paths"][path]["post"]["requestBody"] = _UPLOAD
    described["paths"]["/v1/apps/{app}/replicas/{replica}/exec"] = _exec_path()
    return described


def _config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="skep",
        version=__version__,
        description=_DESCRIPTION,
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        use_handler_docstrings=True,
        components=Components(
            security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")},
        ),
        security=[{"bearer": []}],
        operation_id_creator=lambda handler, _method, _path: handler.handler_name,
    )


def _add_problems(described: dict[str, Any]) -> None:
    (_,), components = msgspec.json.schema_components([Problem], ref_template="#/components/schemas/{name}")
    described["components"]["schemas"] |= components
    answer = {
        "description": "What went wrong, and what to do.",
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for operations in described["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("400", None)
            operation["responses"]["default"] = answer


def _exec_path() -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in ("app", "replica")
    ]
    return {
        "get": {
            "tags": ["replicas"],
            "summary": "ExecInReplica",
            "operationId": "exec_in_replica",
            "description": inspect.getdoc(exec_socket),
            "parameters": parameters,
            "responses": {"101": {"description": "The WebSocket is open."}},
        }
    }
