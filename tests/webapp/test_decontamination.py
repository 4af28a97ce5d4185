"""A student that was distilled without decontamination says so beside every score."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from distiller.recipe import demo_recipe
from tests.webapp.samples import (
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    make_run,
)
from webapp.checkpoints.models import Checkpoint
from webapp.checkpoints.queries import UNDECONTAMINATED, undecontaminated
from webapp.leaderboard import board, choice
from webapp.runs.models import Run

pytestmark = pytest.mark.django_db
PROBLEMS = arithmetic(5)
MARK = "not decontaminated"


def config(**changes: Any) -> dict[str, Any]:
    """A resolved recipe, as a run keeps it."""
    made = demo_recipe(teacher="t", base="b", student="s", prompts="p")
    return made.model_copy(update=changes).model_dump(mode="json")


@pytest.fixture
def scores(user: Any, settings: Any, tmp_path: Any) -> dict[str, Any]:
    """Evaluations of a base and of students: clean, taught blindly, trained on from the latter."""
    settings.MEDIA_ROOT = tmp_path
    runs = {
        name: make_run(user, name, "distillation", config=config(decontaminate=switch))
        for name, switch in (("clean", True), ("blind", False))
    }
    base = make_checkpoint(user, "base")
    clean = make_checkpoint(user, "clean student", parent=base, produced_by=runs["clean"])
    blind = make_checkpoint(user, "blind student", parent=base, produced_by=runs["blind"])
    heir = make_checkpoint(user, "heir", parent=blind, produced_by=runs["clean"])
    benchmark = make_benchmark(PROBLEMS)
    return {
        checkpoint.name: make_evaluation(user, checkpoint, benchmark, PROBLEMS, samples=2)
        for checkpoint in (base, clean, blind, heir)
    }


def test_the_mark_is_inherited(user: Any, scores: dict[str, Any]) -> None:
    names = {e.checkpoint_id: e.checkpoint.name for e in scores.values()}
    marked = {names[pk] for pk in undecontaminated(names)}
    assert marked == {"blind student", "heir"}
    rows = board.build(user, choice.Choice(benchmark="arithmetic", published="no")).rows
    assert {row.name for row in rows if row.undecontaminated} == marked


def test_only_those_asked_for_and_their_ancestors_are_read(
    user: Any, scores: dict[str, Any], django_assert_num_queries: Any
) -> None:
    """Of thousands of checkpoints, each made by a run of its own, a handful of rows is read."""
    others = Run.objects.bulk_create(
        Run(name=f"r{n}", kind="distillation", config={"decontaminate": False}, owner=user,
            project=scores["heir"].run.project)
        for n in range(3000)
    )  # fmt: skip
    parent = None
    chain = []
    for n in range(20):
        parent = make_checkpoint(user, f"link {n}", parent=parent)
        chain.append(parent.pk)
    Checkpoint.objects.bulk_create(
        Checkpoint(name=f"c{run.pk}", owner=user, project=run.project, produced_by=run)
        for run in others
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE checkpoints_checkpoint, runs_run")
    asked = [each.checkpoint_id for each in scores.values()] + chain[-1:] + [None]
    with django_assert_num_queries(1):
        found = undecontaminated(asked)
    assert found == {scores["blind student"].checkpoint_id, scores["heir"].checkpoint_id}
    with connection.cursor() as cursor:
        cursor.execute(
            "EXPLAIN (ANALYZE, FORMAT JSON) " + UNDECONTAMINATED,
            [[pk for pk in asked if pk is not None]],
        )
        plan = cursor.fetchone()[0][0]["Plan"]
    assert sum(_rows_read(plan)) < 200


def _rows_read(node: dict[str, Any]) -> Iterator[float]:
    """Rows that each scan of a table in the plan looked at, kept or not."""
    if "Relation Name" in node:
        each = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        yield each * node["Actual Loops"]
    for child in node.get("Plans", ()):
        yield from _rows_read(child)


def test_loops_of_parents_end(user: Any, scores: dict[str, Any]) -> None:
    heir, blind = scores["heir"].checkpoint, scores["blind student"].checkpoint
    Checkpoint.objects.filter(pk=blind.pk).update(parent=heir)
    assert undecontaminated([heir.pk, blind.pk]) == {heir.pk, blind.pk}


def test_every_page_and_report_of_its_scores_says_so(
    scores: dict[str, Any], client: Client, user: Any
) -> None:
    client.force_login(user)
    for name, evaluation in scores.items():
        expected = name in ("blind student", "heir")
        for address in (
            evaluation.get_absolute_url(),
            evaluation.checkpoint.get_absolute_url(),
            reverse("leaderboard:report_html", args=[evaluation.pk]),
            reverse("leaderboard:report_json", args=[evaluation.pk]),
        ):
            response = client.get(address)
            body = (
                b"".join(response.streaming_content) if response.streaming else response.content
            ).decode()
            assert (MARK in body.lower()) == expected, (name, address)
    board = client.get(reverse("leaderboard:index")).content.decode()
    assert board.count(f">{MARK}</span>") == 2
    report = reverse("leaderboard:report_json", args=[scores["heir"].pk])
    assert json.loads(client.get(report).content)["title"].endswith(MARK)


def test_the_page_of_such_a_run_says_so(scores: dict[str, Any], client: Client, user: Any) -> None:
    client.force_login(user)
    for name, expected in (("clean student", False), ("blind student", True)):
        run = scores[name].checkpoint.produced_by
        assert (MARK in client.get(run.get_absolute_url()).content.decode().lower()) == expected
