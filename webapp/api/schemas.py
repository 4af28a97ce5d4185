"""What goes in and out in more than one place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from annotated_types import Ge, Le, MaxLen
from pydantic import AfterValidator, ConfigDict, Field

from webapp.api.framework import Schema
from webapp.core.text import storable, storable_json


def _kept(text: str) -> str:
    if storable(text) != text:
        raise ValueError("holds a NUL or half a character; remove it")
    return text


def _kept_json(value: Any) -> Any:
    if storable_json(value) != value:
        raise ValueError("holds a NUL or half a character; remove it")
    return value


# What PostgreSQL can keep; anything else is refused before it gets there.
Text = Annotated[str, AfterValidator(_kept)]
Name = Annotated[str, MaxLen(200), AfterValidator(_kept)]
Json = Annotated[dict[str, Any], AfterValidator(_kept_json)]
Key = Annotated[int, Ge(1), Le(2**63 - 1)]


def one_of(words: Sequence[str]) -> Any:
    """A type for what is one of these words: an enumeration's own would go by its name alone, which
    others have, too.
    """
    return Annotated[str, Field(json_schema_extra={"enum": list(words)})]


class In(Schema):
    """A body; what it does not know it refuses, so that a typing error changes nothing unseen."""

    model_config = ConfigDict(extra="forbid")


class Person(Schema):
    """Somebody, by the name they sign in with."""

    id: int
    username: str


class Named(Schema):
    """A thing by key and name."""

    id: int
    name: str


class Done(Schema):
    """It was done."""

    sentence: str


class Dated(Schema):
    """What has a beginning."""

    created_at: datetime
