"""The API's schema, and a page of it that loads nothing from elsewhere and runs no script."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from webapp.api.errors import MEANINGS, refusal
from webapp.api.openapi import schema_of
from webapp.api.service import api


@lru_cache(maxsize=1)
def _schema() -> dict[str, Any]:
    return schema_of(api)


@login_not_required
@require_safe
def openapi(request: HttpRequest) -> HttpResponse:
    """The schema, for whoever writes a client; it holds nothing of this installation's."""
    return JsonResponse(_schema())


@csrf_exempt
@login_not_required
def nothing(request: HttpRequest, rest: str) -> HttpResponse:
    """Any other address of the API, as a program wants to hear it."""
    return refusal(404, "The API has no such address; /api/docs/ lists those it has.")


@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    """Every operation in words."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in _schema()["paths"].items():
        for method, told in methods.items():
            groups.setdefault(told["tags"][0], []).append(_operation(path, method, told))
    schemas = [
        {"name": name, "words": each.get("description", ""), "fields": _fields(each)}
        for name, each in sorted(_schema()["components"]["schemas"].items())
        if "enum" not in each
    ]
    context = {
        "groups": groups,
        "schemas": schemas,
        "meanings": sorted(MEANINGS.items()),
        "address": request.build_absolute_uri("/"),
    }
    return render(request, "api/docs.html", context)


def _operation(path: str, method: str, told: dict[str, Any]) -> dict[str, Any]:
    """What the page says of an operation."""
    body = None
    for kind, content in told.get("requestBody", {}).get("content", {}).items():
        body = {"kind": kind, "fields": _fields(content["schema"])}
    answers = [
        {"status": status, "says": each.get("description", ""), "of": _name(each)}
        for status, each in told["responses"].items()
        if int(status) < 300
    ]
    return {
        "id": told["operationId"],
        "method": method.upper(),
        "path": path,
        "words": told.get("description", ""),
        "scope": told["x-scope"],
        "parameters": [
            {**each, "kind": _kind(each["schema"]), "words": each.get("description", "")}
            for each in told["parameters"]
        ],
        "body": body,
        "answers": answers,
    }


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        found: dict[str, Any] = _schema()["components"]["schemas"][schema["$ref"].split("/")[-1]]
        return found
    return schema


def _fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
    whole = _resolved(schema)
    required = set(whole.get("required", ()))
    return [
        {
            "name": name,
            "kind": _kind(each),
            "required": name in required,
            "words": each.get("description", ""),
            # As it would be sent: false, not False, and an empty text as "".
            "default": None if each.get("default") is None else json.dumps(each["default"]),
        }
        for name, each in whole.get("properties", {}).items()
    ]


def _kind(schema: dict[str, Any]) -> str:
    """A type in a few words."""
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "$ref" in schema:
        target = _resolved(schema)
        return " or ".join(map(str, target["enum"])) if "enum" in target else _name_of(schema)
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("type", "anything"))


def _name_of(schema: dict[str, Any]) -> str:
    return str(schema["$ref"].split("/")[-1])


def _name(answer: dict[str, Any]) -> str:
    for kind, content in answer.get("content", {}).items():
        schema = content.get("schema", {})
        return _name_of(schema) if "$ref" in schema else str(schema.get("title", kind))
    return ""
