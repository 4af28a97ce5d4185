"""The schema holds: whatever is sent, no operation fails, or answers what it does not promise."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.webapp.api.bodies import known_key
from tests.webapp.api.rows import make_world, member
from webapp.api import tokens
from webapp.api.docs_views import _schema
from webapp.api.models import Scope
from webapp.config.wsgi import application
from webapp.projects.models import Project, Role

USUAL = 5
EXAMPLES = int(os.environ.get("RETORT_FUZZ_EXAMPLES", USUAL))
CHECKS = [
    not_a_server_error, content_type_conformance, response_headers_conformance,
    response_schema_conformance, status_code_conformance,
]  # fmt: skip
# Sends what nobody listens for, some seconds each.
_SLOW = {"endpoints_test", "notifications_test"}


def _whole() -> Any:
    return schemathesis.openapi.from_dict(json.loads(json.dumps(_schema())))


def operations() -> list[Any]:
    return [each.ok() for each in _whole().get_all_operations()]


@dataclass
class Scene:
    """Tokens, and keys of rows that are there."""

    secrets: dict[str, str]
    keys: dict[str, Any]


@pytest.fixture
def scene(admin: Any, in_one_transaction: None) -> Scene:
    """An administrator's, an operator's, and one that is none; rows of the operator's."""
    project = Project.objects.order_by("pk")[0]
    operator = member("olga", project, Role.OPERATOR)
    world = make_world(operator, project, "own")
    return Scene(
        {
            "staff": tokens.make(admin, name="s", scope=Scope.ADMIN)[1],
            "operator": tokens.make(operator, name="o", scope=Scope.WRITE)[1],
            "bad": "retort_" + "x" * 43,
        },
        world.keys,
    )


@pytest.mark.parametrize(
    "operation", operations(), ids=lambda each: each.definition.raw["operationId"]
)
def test_no_operation_breaks_its_promise(operation: Any, scene: Scene) -> None:
    few = operation.definition.raw["operationId"] in _SLOW
    for who in scene.secrets:
        _fuzz(operation, scene, who, 1 if few or who == "bad" else EXAMPLES)


def _fuzz(operation: Any, scene: Scene, who: str, examples: int) -> None:
    @given(case=operation.as_strategy(), known=st.booleans())
    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=EXAMPLES == USUAL,
        suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    def call(case: Any, known: bool) -> None:
        if known:  # a key that is drawn is nobody's
            for name in case.path_parameters or {}:
                case.path_parameters[name] = known_key(operation.path, name, scene.keys)
        with transaction.atomic():
            response = case.call(
                app=application, base_url="http://localhost",
                headers={"Authorization": f"Bearer {scene.secrets[who]}"},
            )  # fmt: skip
            transaction.set_rollback(True)
        case.validate_response(response, checks=CHECKS)
        if who == "bad":
            assert response.status_code == 401

    call()
