"""The schema that the API shows of itself: the framework's, with what holds for every operation."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from webapp.api.auth import Needs
from webapp.api.errors import MEANINGS, Refusal
from webapp.api.framework import NinjaAPI, OpenAPISchema

DESCRIPTION = """\
Everything that a page of this installation does, for programs.

Send a token, made on the page *API tokens*, with each request: `Authorization: Bearer retort_…`.
Lists are cut into pages: send `next` as `after` to read on. Whatever is refused is refused with
`{"field", "sentence"}`."""

_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of the form `retort_…`."},
    "session": {
        "type": "apiKey", "in": "cookie", "name": "sessionid",
        "description": "A browser's session; what changes something needs its CSRF token, too.",
    },
}  # fmt: skip


def schema_of(api: NinjaAPI) -> dict[str, Any]:
    """The whole schema as JSON's values."""
    schema: dict[str, Any] = OpenAPISchema(api, "/api/v1/")
    schema["components"]["securitySchemes"] = _SCHEMES
    schema["components"]["schemas"]["Refusal"] = Refusal.model_json_schema()
    scopes = _scopes(api)
    for path in schema["paths"].values():
        for operation in path.values():
            scope = scopes[operation["operationId"]]
            operation["security"] = [{"token": [scope]}, {"session": []}]
            operation["x-scope"] = scope
            for parameter in operation["parameters"]:
                if parameter["in"] == "path" and parameter["schema"].get("type") == "integer":
                    parameter["schema"]["minimum"] = 0  # an address holds no sign
            # One object is shared by all operations of a path: each answer is set once.
            for status, meaning in MEANINGS.items():
                operation["responses"].setdefault(status, _refused(status, meaning))
    return schema


def _refused(status: int, meaning: str) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": meaning,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
    }
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    if status == HTTPStatus.UNAUTHORIZED:
        answer["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return answer


def _scopes(api: NinjaAPI) -> dict[str, str]:
    """The scope that each operation needs, by its id."""
    found: dict[str, str] = {}
    for router in api._get_bound_routers():
        for view in router.path_operations.values():
            for operation in view.operations:
                needs = operation.auth_callbacks[0]
                assert isinstance(needs, Needs)
                name = operation.operation_id or api.get_openapi_operation_id(operation)
                found[name] = str(needs.scope)
    return found
