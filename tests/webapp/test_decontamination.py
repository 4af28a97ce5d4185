"""A student that was distilled without decontamination says so beside every score."""

from __future__ import annotations

import json
from typing import Any

import pytest
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
from webapp.checkpoints.queries import undecontaminated
from webapp.leaderboard import board, choice

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
    marked = {e.checkpoint.name for e in scores.values() if e.checkpoint_id in undecontaminated()}
    assert marked == {"blind student", "heir"}
    rows = board.build(user, choice.Choice(benchmark="arithmetic", published="no")).rows
    assert {row.name for row in rows if row.undecontaminated} == marked


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
