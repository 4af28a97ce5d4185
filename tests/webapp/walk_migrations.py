"""Walk the migrations of a database that holds nothing else; tells what became of its rows.

python -m tests.webapp.walk_migrations back          # rows, every step back to nothing
python -m tests.webapp.walk_migrations from first    # rows of the first schema, forward
python -m tests.webapp.walk_migrations from recent   # of the schema some steps ago
"""

from __future__ import annotations

import json
import sys
import uuid
from typing import Any

import django
from django.apps import apps
from django.contrib.postgres.fields import ArrayField
from django.db import connection, models
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

Rows = dict[str, dict[Any, dict[str, Any]]]  # model -> primary key -> field -> value


def our_apps() -> list[str]:
    found = {app for app, _ in MigrationExecutor(connection).loader.graph.nodes}
    return sorted(a for a in found if apps.get_app_config(a).name.startswith("webapp."))


def migrate(targets: list[tuple[str, str | None]]) -> Any:
    """Go there; returns the state of the models."""
    executor = MigrationExecutor(connection)
    return executor.migrate(targets)


def heads() -> list[tuple[str, str]]:
    return sorted(MigrationExecutor(connection).loader.graph.leaf_nodes())


def plan_of_all() -> list[tuple[str, str]]:
    """Every migration in the order in which an empty database gets them."""
    return list(MigrationExecutor(connection).loader.graph._generate_plan(heads(), at_end=True))


def state_now() -> Any:
    loader = MigrationExecutor(connection).loader
    return loader.project_state(sorted(loader.applied_migrations), at_end=True).apps


def value(field: Any, number: int) -> Any:
    """Something of the field's kind, another one for each number."""
    if field.choices:
        choices = [key for key, _ in field.flatchoices if key != ""]
        return choices[number % len(choices)]
    match field:
        case models.UUIDField():
            return uuid.UUID(int=number + 1)
        case models.BooleanField():
            return bool(number % 2)
        case models.DateTimeField():
            return timezone.now()
        case ArrayField():
            return [value(field.base_field, number)]
        case models.JSONField():
            return {"number": number}
        case models.IntegerField():
            return number + 1
        case models.FloatField() | models.DecimalField():
            return number + 0.5
        case models.CharField() | models.TextField():
            text = f"{field.name} {number}"
            return text[: field.max_length] if field.max_length else text
    raise TypeError(f"{field}: say how a value of {type(field).__name__} is made")


def ours(state: Any) -> list[Any]:
    return [model for model in state.get_models() if model._meta.app_label in our_apps()]


def fill(state: Any) -> None:
    """Two rows of every model of ours, each referring to rows of the same number."""
    todo = ours(state)
    done: dict[Any, list[Any]] = {}
    while todo:
        model = todo.pop(0)
        foreign = [f for f in model._meta.concrete_fields if f.is_relation]
        needed = [f for f in foreign if f.related_model in {*todo} and not f.null]
        if needed:
            todo.append(model)
            continue
        done[model] = []
        for number in range(2):
            values = {}
            for field in model._meta.concrete_fields:
                if field.generated or isinstance(field, models.AutoField):
                    continue
                if field.is_relation:
                    values[field.name] = dict(enumerate(done.get(field.related_model, ()))).get(
                        number
                    )
                else:
                    values[field.name] = value(field, number)
            done[model].append(model._base_manager.create(**values))


def read(state: Any) -> Rows:
    found: Rows = {}
    for model in ours(state):
        rows = model._base_manager.values()
        found[model._meta.label] = {row[model._meta.pk.attname]: row for row in rows}
    return found


def lost(before: Rows, after: Rows) -> list[str]:
    """What is no longer there, or is another: models, rows, fields."""
    wrong = []
    for label, rows in before.items():
        if label not in after:
            wrong.append(label)
            continue
        for key, row in rows.items():
            now = after[label].get(key)
            if now is None:
                wrong.append(f"{label} {key}")
                continue
            wrong += [f"{label}.{n}" for n, old in row.items() if n not in now or now[n] != old]
    return sorted(set(wrong))


def back() -> dict[str, Any]:
    """Every step back, with rows in all tables, and forward again."""
    migrate(heads())
    fill(state_now())
    steps, plan = 0, plan_of_all()
    for app, name in reversed(plan):
        if app in our_apps():
            earlier = [n for a, n in plan[: plan.index((app, name))] if a == app]
            migrate([(app, earlier[-1] if earlier else None)])
            steps += 1
    left = [t for t in connection.introspection.table_names() if t.split("_")[0] in our_apps()]
    migrate(heads())
    fill(state_now())
    return {"steps": steps, "left": left}


def forward(start: str) -> dict[str, Any]:
    """Rows made at an earlier schema, and what the newest says of them."""
    plan = plan_of_all()
    first = [("runs", "0001_initial"), ("checkpoints", "0002_initial")]
    count = max(map(plan.index, first)) + 1 if start == "first" else len(plan) - 4
    for node in plan[:count]:
        migrate([node])
    before = state_now()
    fill(before)
    rows = read(before)
    migrate(heads())
    return {"rows": sum(map(len, rows.values())), "lost": lost(rows, read(state_now()))}


if __name__ == "__main__":
    django.setup()
    print(json.dumps(back() if sys.argv[1] == "back" else forward(sys.argv[2])))
