"""The services write everything or nothing, and say why in one sentence."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile

from distiller.recipe import EvaluationPlan, Prompts, Recipe
from evaluator.benchmarks import arithmetic
from evaluator.protocol import Protocol
from evaluator.records import Problem, problems_hash
from webapp.benchmarks import services as benchmarks
from webapp.benchmarks.models import Benchmark, PromptSet
from webapp.checkpoints import services as checkpoints
from webapp.checkpoints.models import Checkpoint, Upload
from webapp.checkpoints.uploads import receive_whole
from webapp.core.errors import UserError
from webapp.projects.access import first_project
from webapp.runs import services
from webapp.runs.models import Evaluation, Run, Shard, Stage, State

pytestmark = pytest.mark.django_db

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "max_position_embeddings": 64,
}


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


def content(extra: dict[str, bytes] | None = None) -> dict[str, bytes]:
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.json": b'{"model": {"vocab": {"a": 0}}}',
        "model.safetensors": safetensors(),
        **(extra or {}),
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def uploads(files: dict[str, bytes], top: str = "model/") -> list[tuple[str, SimpleUploadedFile]]:
    return [(top + name, SimpleUploadedFile("x", data)) for name, data in files.items()]


def stored() -> set[str]:
    folder = Path(settings.MEDIA_ROOT) / "checkpoints"
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_a_folder_is_registered_by_content_and_equal_contents_share(
    user: Any, tmp_path: Path
) -> None:
    folder = write(tmp_path / "a", content({"notes.txt": b"registered"}))
    one = checkpoints.register_folder(owner=user, name="one", folder=folder)
    two = checkpoints.register_folder(owner=user, name="org/two", folder=folder, parent=one)
    assert one.path == two.path == f"checkpoints/{one.content_hash}"
    assert (one.parameters, one.dtype, one.context_tokens) == (2, "float32", 64)
    assert folder.is_dir()
    kept = Path(settings.MEDIA_ROOT) / one.path
    assert {path.name for path in kept.iterdir()} == {*content(), "notes.txt"}


def test_moving_takes_the_folder_only_after_commit(
    user: Any, tmp_path: Path, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    folder = write(tmp_path / "student", content({"notes.txt": b"moved"}))
    with django_capture_on_commit_callbacks(execute=True):
        made = checkpoints.register_folder(owner=user, name="s", folder=folder, move=True)
        assert folder.exists()
    assert not folder.exists()
    assert (Path(settings.MEDIA_ROOT) / made.path / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("files", "part"),
    [
        (content({"evil.bin": b"\x80"}), "pickled"),
        (content({"modeling.py": b""}), "code"),
        ({k: v for k, v in content().items() if k != "config.json"}, "config.json"),
        (content({"model.safetensors": safetensors()[:9]}), "torn"),
        ({}, "none came"),
    ],
)
def test_a_refused_upload_says_why_and_leaves_nothing(
    user: Any, files: dict[str, bytes], part: str
) -> None:
    before = stored()
    with pytest.raises(UserError) as refusal:
        receive_whole(user, "x", uploads(files))
    assert part in refusal.value.sentence
    assert refusal.value.field == "files"
    assert ".incoming" not in refusal.value.sentence
    assert stored() == before
    assert not Upload.objects.exists()


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../x", "a\\..\\x", ".hidden", "a\x00b", "", "a/b/c/d"]
)
def test_unsafe_names_are_refused(user: Any, name: str) -> None:
    with pytest.raises(UserError, match="not accepted"):
        receive_whole(user, "x", uploads({name: b""}, top=""))
    assert not Upload.objects.exists()


def test_an_upload_with_its_top_folder_is_the_same(user: Any) -> None:
    one = receive_whole(user, "one", uploads(content()))
    two = receive_whole(user, "two", uploads(content(), top=""))
    for upload in (one, two):
        assert {file.path for file in upload.files.all()} == set(content())
        assert all(file.complete for file in upload.files.all())


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b/c/d/e", "a//b", "x" * 201, "taken"])
def test_unusable_checkpoint_names_are_refused(user: Any, name: str) -> None:
    Checkpoint.objects.create(project=first_project(), name="taken", owner=user)
    with pytest.raises(UserError) as refusal:
        receive_whole(user, name, uploads(content()))
    assert refusal.value.field == "name"


@pytest.mark.parametrize("name", ["", "a b", "a\0b", "\ud800", "x" * 201])
def test_completions_are_under_no_name_that_a_checkpoint_could_not_have(
    user: Any, name: str
) -> None:
    """A file's rows may say that anything wrote them."""
    with pytest.raises(UserError) as refusal:
        checkpoints.completions_only(owner=user, project=first_project(), name=name)
    assert refusal.value.field == "checkpoint"


# --- benchmarks and prompt sets


def test_the_same_problems_are_one_version() -> None:
    problems = arithmetic.generate(30, seed=1)
    one = benchmarks.install_benchmark("arithmetic", problems, "here")
    again = benchmarks.install_benchmark("arithmetic", problems[::-1], "there")
    other = benchmarks.install_benchmark("arithmetic", problems[1:], "here")
    assert one == again != other
    assert one.content_hash == problems_hash(problems)
    assert Benchmark.objects.first() == other  # the newest stands first


def test_the_problems_file_says_what_the_rows_say() -> None:
    problems = arithmetic.generate(30, seed=2)
    benchmark = benchmarks.install_benchmark("arithmetic", problems, "here")
    path = benchmarks.problems_file(benchmark)
    written = [Problem.from_json(json.loads(line)) for line in path.read_text().splitlines()]
    assert written == problems
    path.unlink()
    assert benchmarks.problems_file(benchmark).exists()
    again = [Problem.from_json(json.loads(line)) for line in path.read_text().splitlines()]
    assert again == problems


@pytest.mark.parametrize(
    ("name", "problems", "part"),
    [
        ("nonsense", [Problem("1", "1+1", "2")], "known"),
        ("arithmetic", [], "no problems"),
        ("arithmetic", [Problem("1", "1+1", "2")] * 2, "twice"),
        ("arithmetic", [Problem("1", "1+\x00", "2")], "NUL"),
    ],
)
def test_unusable_problems_are_refused_whole(name: str, problems: list[Problem], part: str) -> None:
    with pytest.raises(UserError, match=part):
        benchmarks.install_benchmark(name, problems, "here")
    assert not Benchmark.objects.exists()


# --- runs


@pytest.fixture
def recipe(user: Any) -> Recipe:
    for name in ("base", "teacher"):
        Checkpoint.objects.create(
            project=first_project(), name=name, path=f"checkpoints/{name}", owner=user
        )
    benchmarks.install_benchmark("arithmetic", arithmetic.generate(60, seed=1), "here")
    benchmarks.install_prompt_set("sums", arithmetic.generate(300, seed=2))
    plan = EvaluationPlan(benchmarks=("arithmetic",), protocol=Protocol(samples=4))
    return Recipe(
        teacher="teacher", base="base", student="student",
        prompts=Prompts(set="sums"), evaluation=plan,
    )  # fmt: skip


def test_a_distillation_is_written_with_all_its_stages_and_shards(
    user: Any, recipe: Recipe
) -> None:
    run = services.launch_distillation(owner=user, recipe=recipe)
    kinds = list(run.stages.order_by("position").values_list("kind", "state"))
    assert kinds[0] == ("preflight", "queued")
    assert kinds[1:4] == [("generate", "waiting"), ("filter", "waiting"), ("train", "waiting")]
    assert [kind for kind, _ in kinds[4:]] == ["evaluate", "grade"] * 3
    generate = run.stages.get(kind="generate")
    works = [shard.work["problem_ids"] for shard in generate.shards.order_by("index")]
    assert [len(ids) for ids in works] == [256, 44]
    assert len({each for ids in works for each in ids}) == 300
    assert generate.total == 1200
    roles = dict(run.evaluations.values_list("role", "checkpoint__name"))
    assert roles == {"student": None, "base": "base", "teacher": "teacher"}
    assert len(set(run.evaluations.values_list("measurement_hash", flat=True))) == 1
    assert Recipe.model_validate(run.config) == recipe


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"teacher": "nobody"}, "teacher"),
        ({"base": "nobody"}, "base"),
        ({"student": "teacher"}, "student"),
        ({"student": "a b"}, "student"),
        ({"prompts": Prompts(set="none")}, "prompts"),
        ({"evaluation": EvaluationPlan(benchmarks=("aime_2024",))}, "benchmarks"),
    ],
)
def test_a_recipe_that_cannot_be_followed_launches_nothing(
    user: Any, recipe: Recipe, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(UserError) as refusal:
        services.launch_distillation(owner=user, recipe=recipe.model_copy(update=change))
    assert refusal.value.field == field
    assert not any(model.objects.exists() for model in (Run, Stage, Shard, Evaluation))


def test_only_what_has_files_can_be_evaluated(user: Any, recipe: Recipe) -> None:
    benchmark = Benchmark.objects.get()
    bare = Checkpoint.objects.create(project=first_project(), name="bare", owner=user)
    with pytest.raises(UserError, match="no files"):
        services.launch_evaluation(
            owner=user, checkpoint=bare, benchmark=benchmark, protocol=Protocol()
        )
    with pytest.raises(UserError, match="engine"):
        services.launch_evaluation(
            owner=user, checkpoint=Checkpoint.objects.get(name="base"), benchmark=benchmark,
            protocol=Protocol(), engine="magic",
        )  # fmt: skip


def test_states_allow_cancel_and_retry_only_where_they_mean_something(
    user: Any, recipe: Recipe
) -> None:
    run = services.launch_distillation(owner=user, recipe=recipe)
    with pytest.raises(UserError, match="queued"):
        services.retry_run(run)
    services.cancel_run(run)
    with pytest.raises(UserError, match="cancelled already"):
        services.cancel_run(run)
    services.retry_run(run)
    run.refresh_from_db()
    assert run.state == State.QUEUED
    assert run.stages.filter(state=State.QUEUED).get().kind == "preflight"
    assert set(Shard.objects.values_list("state", flat=True)) == {State.QUEUED}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no completion"),
        ("{", "line 1"),
        ('{"problem_id": "nobody", "sample": 0, "completion": ""}', "nobody"),
        ('{"problem_id": 7}', "completion must be a text"),
    ],
)
def test_a_bad_file_of_completions_is_refused_whole(
    user: Any, recipe: Recipe, tmp_path: Path, text: str, part: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=part) as refusal:
        services.import_completions(
            owner=user, checkpoint_name="new", benchmark=Benchmark.objects.get(), path=path
        )
    assert refusal.value.field == "file"
    assert not Run.objects.exists()
    assert not Checkpoint.objects.filter(name="new").exists()


def test_prompt_sets_have_versions_and_safe_names() -> None:
    one = benchmarks.install_prompt_set("sums", arithmetic.generate(10, seed=1))
    two = benchmarks.install_prompt_set("sums", arithmetic.generate(11, seed=1))
    assert one != two
    assert PromptSet.objects.first() == two
    assert [each.id for each in benchmarks.read_prompts(two)] == [
        each.id for each in arithmetic.generate(11, seed=1)
    ]
    with pytest.raises(UserError, match="name"):
        benchmarks.install_prompt_set("../x", arithmetic.generate(1, seed=1))
