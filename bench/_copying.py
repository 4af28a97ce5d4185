"""Rows of Django models into PostgreSQL by COPY, without foreign keys' checks and triggers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, models
from psycopg import sql
from psycopg.types.json import Jsonb


class Text(str):
    """JSON that is written already."""

    __slots__ = ()


@contextmanager
def bulk() -> Iterator[None]:
    """No trigger fires, foreign keys' included: whoever fills answers for what refers to what."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("SET synchronous_commit = off")
        cursor.execute("SET maintenance_work_mem = '512MB'")
        try:
            yield
        finally:
            cursor.execute("RESET session_replication_role")


@contextmanager
def without_indexes(model: type[models.Model]) -> Iterator[None]:
    """All indexes and constraints but the primary key go, and are built again at the end."""
    table = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE conrelid = %s::regclass AND contype IN ('u', 'f')", [table],
        )  # fmt: skip
        constraints = cursor.fetchall()
        for name, _ in constraints:
            cursor.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s "
            "AND indexname NOT LIKE %s", [table, "%_pkey"],
        )  # fmt: skip
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f'DROP INDEX "{name}"')
        yield
        for _, definition in indexes:
            cursor.execute(definition)
        for name, definition in constraints:
            # Not checked again: the rows are made to refer to what there is.
            late = " NOT VALID" if definition.startswith("FOREIGN") else ""
            cursor.execute(f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {definition}{late}')


def copy(model: type[models.Model], rows: Iterable[models.Model]) -> int:
    """Write instances as they are, primary keys included, in the fields' own column forms."""
    fields = [field for field in model._meta.concrete_fields if not field.generated]
    count = 0
    with connection.cursor() as cursor, cursor.cursor.copy(_statement(model, fields)) as sink:
        for row in rows:
            sink.write_row([_value(field, row) for field in fields])
            count += 1
    _set_sequence(model)
    return count


def copy_lines(model: type[models.Model], names: list[str], blocks: Iterable[str]) -> None:
    """Write lines in COPY's text form, of the fields named; others take the columns' defaults."""
    fields = [model._meta.get_field(name) for name in names]
    with connection.cursor() as cursor, cursor.cursor.copy(_statement(model, fields)) as sink:
        for block in blocks:
            sink.write(block)


def _statement(model: type[models.Model], fields: Iterable[Any]) -> sql.Composed:
    return sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(model._meta.db_table),
        sql.SQL(", ").join(sql.Identifier(field.column) for field in fields),
    )


def _value(field: Any, row: models.Model) -> Any:
    value = field.pre_save(row, True) if _is_stamp(field) else getattr(row, field.attname)
    if isinstance(value, Text):
        return Jsonb(value, dumps=str)
    return field.get_db_prep_save(value, connection)


def _is_stamp(field: Any) -> bool:
    return bool(getattr(field, "auto_now", False))


def _set_sequence(model: type[models.Model]) -> None:
    table, key = model._meta.db_table, model._meta.pk.column
    if model._meta.pk.get_internal_type() not in ("BigAutoField", "AutoField"):
        return
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT setval(pg_get_serial_sequence(%s, %s), "
            f"greatest((SELECT max({key}) FROM {table}), 1))", [table, key],
        )  # fmt: skip
