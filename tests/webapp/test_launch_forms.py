"""Launch forms: good input becomes one configuration, bad input a sentence at its field."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from evaluator.protocol import PRESETS
from tests.webapp.samples import arithmetic, make_benchmark, make_checkpoint
from webapp.benchmarks.models import Benchmark, PromptSet
from webapp.checkpoints.models import Checkpoint
from webapp.core.errors import UserError
from webapp.endpoints.models import Endpoint
from webapp.runs.launching.distil import DistillationForm
from webapp.runs.launching.evaluate import EvaluationForm
from webapp.runs.models import Run, State

pytestmark = pytest.mark.django_db


@pytest.fixture
def filled(user: Any) -> dict[str, Any]:
    """What the form sends when only the visible fields were filled in."""
    teacher = make_checkpoint(user, "teacher", context_tokens=4096)
    base = make_checkpoint(user, "base", context_tokens=131072)
    benchmark = make_benchmark(arithmetic(3))
    prompts = PromptSet.objects.create(
        name="p", content_hash="0" * 64, path="prompts/p.jsonl", prompt_count=3
    )
    blank = DistillationForm(user)
    data = {
        name: field.initial
        for name, field in blank.fields.items()
        if field.initial is not None and field.initial is not False
    }
    return data | {
        "teacher": teacher.pk, "base": base.pk, "student": "student", "prompt_set": prompts.pk,
        "benchmarks": [benchmark.name],
    }  # fmt: skip


def test_the_defaults_make_a_recipe(filled: dict[str, Any], user: Any) -> None:
    form = DistillationForm(user, filled)
    assert form.is_valid(), form.errors
    recipe = form.cleaned_data["recipe"]
    assert (recipe.teacher, recipe.base, recipe.student) == ("teacher", "base", "student")
    assert recipe.prompts.set == "p"
    assert recipe.prompts.limit is None
    assert recipe.generation.samples == 4
    assert recipe.generation.sampling.max_tokens == 4096  # the teacher's context
    assert recipe.training.max_length_tokens == 32768  # not the base's 131,072
    assert recipe.evaluation.benchmarks == ("arithmetic",)
    assert recipe.evaluation.protocol.name == "quick"
    assert [f.name for f in recipe.filters] == filled["filters"]
    assert recipe.decontaminate


def test_at_most_eight_fields_are_visible(user: Any) -> None:
    assert len(DistillationForm(user).main_fields()) <= 8


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("teacher", 999), ("base", ""), ("student", "a b"), ("student", "teacher"),
        ("prompt_set", ""), ("samples", 0), ("samples", 257), ("epochs", 0), ("epochs", "x"),
        ("learning_rate", -1), ("batch_size", 0), ("temperature", 3), ("max_tokens", 0),
        ("prompt", "no placeholder"), ("filters", ["unknown"]), ("protocol", "nonsense"),
        ("benchmarks", ["none"]), ("max_length_tokens", 7), ("teacher", "'; --"), ("base", 10**30),
        ("student", "\x00"), ("student", "x" * 201), ("student", ""), ("samples", "9" * 5000),
        ("epochs", "nan"), ("epochs", "1e999"), ("epochs", 1e300), ("learning_rate", "inf"),
        ("batch_size", 10**30), ("max_tokens", 10**30), ("prompts_limit", 0), ("prompt", ""),
        ("thinking", "loudly"), ("protocol", ""), ("temperature", ""), ("temperature", "warm"),
    ],
)  # fmt: skip
def test_bad_input_is_told_at_its_field(
    filled: dict[str, Any], field: str, value: Any, user: Any
) -> None:
    form = DistillationForm(user, filled | {field: value})
    assert not form.is_valid()
    assert set(form.errors) == {field}
    names = (str(form.fields[field].label or field).lower(), field.replace("_", " "), field)
    for sentence in form.errors[field]:
        assert sentence.lower().startswith(tuple(f"{name}: " for name in names)), sentence
        assert sentence.endswith(".")


def test_switched_off_filters_are_off(filled: dict[str, Any], user: Any) -> None:
    form = DistillationForm(user, filled | {"filters": ["format"], "decontaminate": ""})
    assert form.is_valid(), form.errors
    assert [f.name for f in form.cleaned_data["recipe"].filters] == ["format"]
    assert not form.cleaned_data["recipe"].decontaminate


def test_an_evaluation_keeps_the_preset_but_for_what_was_given(
    filled: dict[str, Any], user: Any
) -> None:
    data = {
        "checkpoints": [filled["teacher"]], "benchmarks": [Benchmark.objects.get().pk],
        "protocol": "r1", "engine": "transformers",
    }  # fmt: skip
    plain = EvaluationForm(user, data)
    assert plain.is_valid(), plain.errors
    assert plain.resolved_protocol == PRESETS["r1"]
    changed = EvaluationForm(user, data | {"samples": 7, "max_tokens": 99})
    assert changed.is_valid()
    sampling = PRESETS["r1"].sampling.model_copy(update={"max_tokens": 99})
    wanted = PRESETS["r1"].model_copy(update={"samples": 7, "sampling": sampling})
    assert changed.resolved_protocol == wanted
    assert set(EvaluationForm(user, data | {"samples": 0}).errors) == {"samples"}


def test_what_is_missing_stands_at_the_field(user: Any, filled: dict[str, Any]) -> None:
    client = Client()
    client.force_login(user)
    for address in ("/runs/distil/", "/runs/evaluate/"):
        response = client.post(address, {})
        assert response.status_code == 400
        assert 'class="error"' in response.content.decode()
        assert not Run.objects.exists()


def test_a_filled_form_launches_and_leads_to_the_run(
    user: Any, filled: dict[str, Any], settings: Any, tmp_path: Any
) -> None:
    settings.MEDIA_ROOT = tmp_path
    (tmp_path / "prompts").mkdir()
    rows = "".join(json.dumps(p.to_json()) + "\n" for p in arithmetic(3))
    (tmp_path / "prompts" / "p.jsonl").write_text(rows)
    client = Client()
    client.force_login(user)
    response = client.post("/runs/distil/", filled)
    run = Run.objects.get()
    assert response.status_code == 302, response.content.decode()
    assert response["location"] == run.get_absolute_url()
    assert run.owner == user
    assert [s.kind for s in run.stages.all()][:3] == ["preflight", "generate", "filter"]
    assert client.get(run.get_absolute_url()).status_code == 200
    client.post(f"/runs/{run.pk}/cancel/")
    run.refresh_from_db()
    assert run.state == State.CANCELLED
    assert "there is nothing to cancel" in client.post(
        f"/runs/{run.pk}/cancel/", follow=True
    ).content.decode()  # fmt: skip
    client.post(f"/runs/{run.pk}/retry/")
    run.refresh_from_db()
    assert run.state != State.CANCELLED


def test_a_field_of_the_recipe_that_a_service_refuses_is_told_on_the_form(
    user: Any, filled: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**values: Any) -> None:
        raise UserError("prompts: no prompt set is called 'p'; install one first.", "prompts")

    monkeypatch.setattr("webapp.runs.services.launch_distillation", refuse)
    client = Client()
    client.force_login(user)
    response = client.post("/runs/distil/", filled)
    assert response.status_code == 400
    assert set(response.context["form"].errors) == {"prompt_set"}


def test_only_checkpoints_with_files_are_offered(user: Any, filled: dict[str, Any]) -> None:
    make_checkpoint(user, "elsewhere", path="")
    for name in ("teacher", "base"):
        names = {str(c) for c in DistillationForm(user).fields[name].queryset}  # type: ignore[attr-defined]
        assert names == {"teacher", "base"}


# --- completions made elsewhere


def completions(rows: list[Any], name: str = "c.jsonl") -> SimpleUploadedFile:
    body = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return SimpleUploadedFile(name, gzip.compress(body) if name.endswith(".gz") else body)


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz"])
def test_completions_are_imported_through_the_browser(
    user: Any, settings: Any, tmp_path: Any, name: str
) -> None:
    settings.MEDIA_ROOT = tmp_path
    problems = arithmetic(3)
    benchmark = make_benchmark(problems)
    client = Client()
    client.force_login(user)
    rows = [{"problem_id": p.id, "completion": f"\\boxed{{{p.answer}}}"} for p in problems]
    data = {"benchmark": benchmark.pk, "checkpoint": "far/away", "file": completions(rows, name)}
    response = client.post("/runs/import/", data)
    run = Run.objects.get()
    assert response.status_code == 302
    assert response["location"] == run.get_absolute_url()
    assert [s.kind for s in run.stages.all()] == ["import", "grade"]
    assert run.evaluations.get().checkpoint.name == "far/away"  # type: ignore[union-attr]


@pytest.mark.parametrize("known", ["files", "released", "endpoint", "another's", "own"])
def test_imported_scores_go_under_nobody_elses_and_no_models_name(
    user: Any, admin: Any, settings: Any, tmp_path: Any, known: str
) -> None:
    settings.MEDIA_ROOT = tmp_path
    benchmark = make_benchmark(arithmetic(3))
    holder = admin if known == "another's" else user
    content = {} if known in ("files", "released") else {"content_hash": ""}
    path = {} if known == "files" else {"path": ""}
    checkpoint = make_checkpoint(holder, "org/model", **content, **path)
    if known == "endpoint":
        Endpoint.objects.create(
            checkpoint=checkpoint, base_url="https://example.com/v1", model="m", owner=user
        )
    for person, accepted in ((user, known == "own"), (admin, True)):
        client = Client()
        client.force_login(person)
        file = completions([{"problem_id": "sum-000", "completion": "1"}])
        data = {"benchmark": benchmark.pk, "checkpoint": " org/model", "file": file}
        answer = client.post("/runs/import/", data)
        assert answer.status_code == (302 if accepted else 400)
        assert Run.objects.filter(owner=person).exists() == accepted
        if not accepted:
            assert "another name" in answer.context["form"].errors["checkpoint"][0]
    assert Checkpoint.objects.get() == checkpoint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("benchmark", ""), ("checkpoint", ""), ("checkpoint", "a b"), ("file", ""),
        ("file", completions([])), ("file", completions([{"problem_id": "nowhere"}])),
        ("file", completions([{"problem_id": "nowhere", "completion": "1"}])),
        ("file", completions([{"problem_id": "sum-000", "completion": "1", "sample": -1}])),
        *(("file", completions([{"problem_id": "sum-000", "completion": "1", "sample": last}]))
          for last in (1024, 2**31 - 1, 2**31, 10**30)),
        ("file", completions([{"problem_id": "sum-000", "completion": "1", "finish_reason": [1]}])),
        ("file", SimpleUploadedFile("c.jsonl.gz", b"not gzip")),
        ("file", SimpleUploadedFile("c.jsonl", b"\x80\x04K\x01.")),
    ],
)  # fmt: skip
def test_a_bad_import_is_told_at_its_field_and_leaves_nothing(
    user: Any, settings: Any, tmp_path: Any, field: str, value: Any
) -> None:
    settings.MEDIA_ROOT = tmp_path
    benchmark = make_benchmark(arithmetic(3))
    client = Client()
    client.force_login(user)
    rows = [{"problem_id": "sum-000", "completion": "1"}]
    data = {"benchmark": benchmark.pk, "checkpoint": "far", "file": completions(rows)}
    if hasattr(value, "seek"):
        value.seek(0)
    response = client.post("/runs/import/", data | {field: value})
    assert response.status_code == 400
    errors = response.context["form"].errors
    assert set(errors) == {field}
    assert errors[field][0].lower().startswith(f"{field}: ")
    # No machine path is told.
    assert "/tmp" not in errors[field][0]
    assert not Run.objects.exists()
    assert not Checkpoint.objects.exists()
    assert list(tmp_path.iterdir()) == []
