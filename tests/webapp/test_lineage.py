"""What the pages say of a distillation's traces and of a student's origin."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from distiller.generation import Tally
from tests.distiller.samples import recipe
from tests.webapp.samples import FUNNEL, everything, make_checkpoint, make_run, make_stage
from webapp.benchmarks.models import PromptSet
from webapp.checkpoints.lineage import lineage_of
from webapp.checkpoints.models import Checkpoint
from webapp.runs.models import Run, State, TrainingPoint
from webapp.runs.yields import traces_of

pytestmark = pytest.mark.django_db

PRICE = {"input_per_million": 1.0, "output_per_million": 4.0, "currency": "EUR"}


def distillation(user: Any, **changes: Any) -> Run:
    chosen = recipe("base", generation={"samples": 4, "stop_after": 2, "price": PRICE}, **changes)
    run = make_run(user, "run", "distillation", state=State.RUNNING,
                   config=chosen.model_dump(mode="json"))  # fmt: skip
    teacher = make_checkpoint(user, "teacher & co")
    base = make_checkpoint(user, "a base")
    prompts = PromptSet.objects.create(
        name="sums", content_hash="e" * 64, path="prompts/e.jsonl", prompt_count=300
    )
    config = {"teacher": teacher.pk, "base": base.pk, "prompt_set": prompts.pk}
    stage = make_stage(run, 0, "generate", "Generate traces", config=config)
    for shard, verified in ((7, 50), (9, 70)):
        tally = Tally(
            prompts=100, prompts_verified=verified, traces=300, traces_verified=200,
            not_needed=60, prompt_tokens=1_000_000, completion_tokens=2_000_000,
        )  # fmt: skip
        TrainingPoint.objects.create(stage=stage, step=shard, values=tally.to_json())
    return run


def test_tallies_of_all_shards_are_added_and_priced(user: Any, page: Client) -> None:
    run = distillation(user)
    found = traces_of(run)
    assert found is not None
    assert found.tally.running_yield == pytest.approx(0.6)
    assert found.cost == pytest.approx(2 * 1 + 4 * 4)
    for address in (run.get_absolute_url(), f"{run.get_absolute_url()}live/"):
        text = page.get(address).content.decode()
        assert "60.0 %" in text
        assert "120 of 200 asked so far" in text
        assert "18.00 EUR" in text
        assert "120 samples" in text


def test_a_run_without_tallies_shows_no_traces(user: Any, page: Client) -> None:
    run = distillation(user)
    TrainingPoint.objects.all().delete()
    assert traces_of(run) is None
    assert "Traces of the teacher" not in page.get(run.get_absolute_url()).content.decode()


def test_a_student_tells_its_way_back_to_the_prompts(user: Any, page: Client) -> None:
    run = distillation(user, decontaminate=False)
    make_stage(run, 1, "filter", "Filter traces",
               result={"funnel": FUNNEL, "manifest_hash": "d" * 64})  # fmt: skip
    student = make_checkpoint(user, "student", produced_by=run)
    links = {link.role: link for link in lineage_of(student, everything())}
    assert list(links) == [
        "student", "base", "corpus", "filter settings", "traces", "teacher", "prompts"
    ]  # fmt: skip
    assert links["corpus"].content_hash == "d" * 64
    assert links["prompts"].content_hash == "e" * 64
    assert links["traces"].name == "600 traces"
    assert links["filter settings"].facts["decontamination"] == "OFF"
    text = page.get(student.get_absolute_url()).content.decode()
    assert "teacher &amp; co" in text
    assert "600 traces" in text
    assert "How it came about" in text


def test_what_was_deleted_is_named_and_an_upload_has_no_lineage(user: Any, page: Client) -> None:
    run = distillation(user)
    student = make_checkpoint(user, "student", produced_by=run)
    Checkpoint.objects.filter(name="teacher & co").delete()
    teacher = next(link for link in lineage_of(student, everything()) if link.role == "teacher")
    assert (teacher.name, teacher.key) == ("teacher", None)
    assert page.get(student.get_absolute_url()).status_code == 200
    assert lineage_of(make_checkpoint(user, "uploaded"), everything()) == []
