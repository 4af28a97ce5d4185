"""The leaderboard, and evaluations side by side."""

from __future__ import annotations

from typing import Annotated, Any

from django.http import HttpRequest, QueryDict
from pydantic import Field

from evaluator.comparison import Contrast
from webapp.api.framework import Query, Router, Schema
from webapp.api.paging import Page, Paged, cut
from webapp.api.schemas import Key, Name
from webapp.core.errors import UserError
from webapp.core.users import signed_in
from webapp.leaderboard import board, choice, compare, heatmap
from webapp.leaderboard.board import Board, Cell, Row

leaderboard = Router(tags=["leaderboard"])
comparison = Router(tags=["comparison"])


class ColumnOut(Schema):
    """A column of the leaderboard."""

    key: str
    title: str
    name: str


class FigureOut(Schema):
    """What others published."""

    value: float
    source: str


class CellOut(Schema):
    """A figure of a row; shares are in [0, 1], undefined is null."""

    key: str
    value: float | None
    low: float | None
    high: float | None
    text: str
    evaluation: int | None
    samples: int | None
    measurement_hash: str | None
    comparable: bool
    published: list[FigureOut]


class RowOut(Schema):
    """A checkpoint under one measurement of each benchmark, or a published model."""

    rank: int | None
    name: str
    checkpoint: int | None = Field(description="null: a published model.")
    not_decontaminated: bool
    cells: list[CellOut]


class BoardOut(Page[RowOut]):
    """A page of the leaderboard, with its columns."""

    columns: list[ColumnOut]
    sort: str


class BoardWanted(Paged):
    """What is shown, as in the page's address."""

    benchmark: Name = ""
    c: list[Name] = Field([], max_length=100, description="Columns, as `aime_2024:pass@1`.")
    sort: Name = ""
    project: Name = Field("", description="A project's name.")
    family: Name = ""
    teacher: Name = ""
    owner: Name = ""
    tag: Name = ""
    published: Name = Field("", description="no: without published figures; only: just those.")
    same: bool = Field(False, description="Only the usual measurement of each benchmark.")


class ContrastOut(Schema):
    """A paired difference from the baseline; shares, so 0.05 is five points."""

    problems: int
    difference: float
    low: float | None
    high: float | None
    se: float | None
    p: float
    p_holm: float = Field(description="After Holm's correction over those compared.")
    significant: bool
    resolvable: float | None
    wins: int
    losses: int
    verdict: str


class ScoreOut(Schema):
    """An evaluation on the problems that all share."""

    letter: str
    evaluation: int
    name: str
    baseline: bool
    value: float | None
    low: float | None
    high: float | None
    tokens: float | None = Field(description="Mean per completion.")
    on_frontier: bool
    contrast: ContrastOut | None


class ComparisonOut(Schema):
    """Evaluations side by side."""

    problems: int = Field(description="That all of them share.")
    scores: list[ScoreOut]
    sentences: list[str] = Field(description="What a reader has to be warned of.")
    notes: list[str]


class SharedProblem(Schema):
    """A shared problem: the share right of each evaluation, by its letter."""

    problem_id: str
    subject: str
    level: str
    shares: dict[str, float | None]
    changes: dict[str, float | None] = Field(description="Against the baseline.")


class Compared(Schema):
    """Two to eight evaluations, and which of them is the baseline."""

    e: Annotated[list[Key], Field(min_length=2, max_length=compare.MOST)]
    base: Key | None = None


class ComparedProblems(Compared):
    """The same, and which page of their problems."""

    after: int | None = Field(None, ge=0, le=10**9)
    limit: int = Field(50, ge=1, le=200)


@leaderboard.get("", response=BoardOut)
def leaderboard_rows(request: HttpRequest, wanted: Query[BoardWanted]) -> dict[str, Any]:
    """Scores with intervals, in order; `next` counts rows."""
    query = QueryDict(mutable=True)
    given = wanted.model_dump(exclude={"after", "limit", "same"}) | {"same": "1" * wanted.same}
    for name, value in given.items():
        query.setlist(name, value if isinstance(value, list) else [value])
    chosen = choice.read(QueryDict(query.urlencode()))
    if chosen.said:
        raise UserError(chosen.said[0], chosen.said[0].partition(":")[0])
    found = board.build(signed_in(request), chosen)
    begin = wanted.after or 0
    part = cut(found.rows[begin : begin + wanted.limit + 1], wanted, begin + wanted.limit)
    return {**part, "items": [_row(row) for row in part["items"]], **_head(found)}


def _head(found: Board) -> dict[str, Any]:
    columns = [{"key": c.key, "title": c.title, "name": c.name} for c in found.columns]
    return {"columns": columns, "sort": found.sort}


def _row(row: Row) -> dict[str, Any]:
    return {
        "rank": row.rank, "name": row.name,
        "checkpoint": None if row.facts is None else row.facts.pk,
        "not_decontaminated": row.undecontaminated,
        "cells": [_cell(cell) for cell in row.cells],
    }  # fmt: skip


def _cell(cell: Cell) -> dict[str, Any]:
    each = cell.measured
    return {
        "key": cell.column.key, "value": cell.value, "low": cell.low, "high": cell.high,
        "text": cell.text, "comparable": cell.comparable,
        "evaluation": None if each is None else each.pk,
        "samples": None if each is None else each.samples,
        "measurement_hash": None if each is None else each.measurement_hash,
        "published": [{"value": f.value, "source": f.source.title} for f in cell.figures],
    }  # fmt: skip


def _compared(request: HttpRequest, wanted: Compared) -> compare.Comparison:
    chosen, gone = compare.find(signed_in(request), wanted.e)
    if gone:
        raise UserError(f"e: evaluation {gone[0]} has no figures here; choose another.", "e")
    if len(chosen) < compare.FEWEST:
        raise UserError("e: name at least two evaluations.", "e")
    if wanted.base is not None and wanted.base not in {each.pk for each in chosen}:
        raise UserError("base: is none of the evaluations; choose one of them.", "base")
    return compare.compare(chosen, compare.baseline_of(chosen, wanted.base))


@comparison.get("", response=ComparisonOut)
def comparison_scores(request: HttpRequest, wanted: Query[Compared]) -> dict[str, Any]:
    """Scores on the shared problems, with paired differences from the baseline."""
    found = _compared(request, wanted)
    return {
        "problems": len(found.problems), "sentences": found.sentences, "notes": found.notes,
        "scores": [_score(each) for each in found.scores],
    }  # fmt: skip


def _score(each: compare.Score) -> dict[str, Any]:
    side = each.side
    return {
        "letter": side.letter, "evaluation": side.evaluation.pk, "name": side.name,
        "baseline": side.is_baseline, "value": each.value, "low": each.low, "high": each.high,
        "tokens": each.tokens, "on_frontier": each.on_frontier,
        "contrast": None if each.contrast is None else _contrast(each.contrast),
    }  # fmt: skip


def _contrast(found: Contrast) -> dict[str, Any]:
    paired = found.paired
    names = ("problems", "difference", "low", "high", "se", "p", "resolvable")
    return {name: getattr(paired, name) for name in names} | {
        "p_holm": found.p_holm, "significant": found.significant, "wins": found.wins,
        "losses": found.losses, "verdict": found.verdict,
    }  # fmt: skip


@comparison.get("/problems", response=Page[SharedProblem])
def comparison_problems(request: HttpRequest, wanted: Query[ComparedProblems]) -> dict[str, Any]:
    """The shared problems, one by one, in the baseline's order."""
    rows = heatmap.rows(_compared(request, wanted))
    begin = wanted.after or 0
    part = rows[begin : begin + wanted.limit + 1]
    items = [
        {
            "problem_id": row.problem.problem_id, "subject": row.problem.subject,
            "level": row.problem.level,
            "shares": {c.side.letter: c.tally.share if c.tally else None for c in row.cells},
            "changes": {c.side.letter: c.change for c in row.cells},
        }
        for row in part[: wanted.limit]
    ]  # fmt: skip
    more = len(part) > wanted.limit
    return {"items": items, "next": begin + wanted.limit if more else None}
