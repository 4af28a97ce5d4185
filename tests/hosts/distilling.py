"""A small distillation on two hosts that share no disk, read on a third that runs no worker.

Beta does what the queue ``cpu`` serves, alpha what a GPU is for, so that every stage works on what
the other host made. Both draw traces, until beta's worker that draws is killed. Base, corpus,
training and student are real; the teacher is scripted.
"""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from evaluator.records import Completion, FinishReason, completion_seed
from tests.hosts.network import HOSTS
from tests.hosts.scene import Installation, ended
from tests.hosts.servers import wait_for
from tests.hosts.teacher import written

PROMPTS, SAMPLES, SHARD_PROMPTS = 40, 2, 4
PROBLEMS = 4  # of the benchmark that the student is measured on
CHATS = 12
TRAINING = {
    "epochs": 2, "learning_rate": 1e-2, "batch_size": 8, "max_length_tokens": 128,
    "gradient_checkpointing": False, "save_seconds": 0.1,
}  # fmt: skip


def play(scene: Installation) -> dict[str, Any]:
    """Launch it as the web host does, see it through, and tell what can be read there."""
    from django.core.management import call_command

    from webapp.core.models import User
    from webapp.runs import services

    call_command("migrate", verbosity=0)
    owner = User.objects.create_user("ada")
    workers = {
        (host, queue): scene.start(host, "tests/hosts/worker.py", RETORT_QUEUES=queue)
        for host, queue in (("alpha", "gpu"), ("beta", "gpu"), ("beta", "cpu,judge,upkeep"))
    }
    recipe = recipe_of(owner)
    run = services.launch_distillation(owner=owner, recipe=recipe)
    drawing = run.stages.get(kind="generate")

    def both() -> bool:
        assert all(worker.poll() is None for worker in workers.values()), "a worker ended early"
        drawn = drawing.shards.filter(segments__isnull=False).values_list("worker", flat=True)
        return {name.partition("/")[0] for name in drawn} == set(HOSTS) or ended(run)

    wait_for(both, "both hosts draw")
    os.killpg(workers["beta", "gpu"].pid, signal.SIGKILL)
    wait_for(lambda: ended(run), f"{run}")
    result: dict[str, Any] = {"state": run.state, "error": run.error, "hosts": hosts_of(run)}
    if run.state == "finished":
        result |= told(run, owner)
    scene.stop_workers()
    return result


def recipe_of(owner: Any) -> Any:
    """Put everything that the recipe names into the store, from the web host."""
    from django.core.files.uploadedfile import SimpleUploadedFile

    from distiller.recipe import ChatSource, CorpusPlan, EvaluationPlan, Training, demo_recipe
    from evaluator.benchmarks import arithmetic
    from evaluator.protocol import Protocol, Sampling
    from tests.distiller.samples import make_tiny
    from webapp.benchmarks import services as benchmarks
    from webapp.checkpoints.services import register_folder
    from webapp.runs.launching import chats

    with tempfile.TemporaryDirectory() as folder:
        for name, kind in (("base", "qwen2"), ("teacher", "llama")):
            made = make_tiny(kind, Path(folder) / name)
            register_folder(owner=owner, name=name, folder=made)
    benchmarks.install_benchmark("arithmetic", arithmetic.generate(PROBLEMS, seed=9), "a scene")
    benchmarks.install_prompt_set("sums", arithmetic.generate(PROMPTS, seed=4))
    lines = "".join(f'{{"prompt": "say {n}", "response": "{n}."}}\n' for n in range(CHATS))
    uploaded = SimpleUploadedFile("chats.jsonl", lines.encode())
    recipe = demo_recipe(teacher="teacher", base="base", student="student", prompts="sums")
    generation = {"samples": SAMPLES, "shard_prompts": SHARD_PROMPTS}
    sampling = Sampling(temperature=0.6, top_p=0.95, max_tokens=8)
    return recipe.model_copy(
        update={
            "generation": recipe.generation.model_copy(update=generation),
            "corpus": CorpusPlan(general=(ChatSource(file=chats.keep(uploaded, owner)),)),
            "training": Training.model_validate(TRAINING),
            "evaluation": EvaluationPlan(
                benchmarks=("arithmetic",), roles=("student",),
                protocol=Protocol(name="demo", samples=SAMPLES, sampling=sampling),
            ),
        }
    )  # fmt: skip


def hosts_of(run: Any) -> dict[str, list[str]]:
    """Which hosts did each stage's shards."""
    return {
        stage.kind: sorted(
            {name.partition("/")[0] for name in stage.shards.values_list("worker", flat=True)}
        )
        for stage in run.stages.order_by("position")
    }


def told(run: Any, owner: Any) -> dict[str, Any]:
    """What the web host, which made none of it, can read of a finished run."""
    from distiller import corpus
    from webapp.checkpoints.models import Checkpoint
    from webapp.core import store
    from webapp.runs import files

    filtered = run.stages.get(kind="filter")
    student = Checkpoint.objects.get(name="student")
    examples, manifest = corpus.read(store.fetch(filtered.result["corpus"]))
    report = files.read_preflight(run.stages.get(kind="preflight"))
    assert report is not None
    return {
        "wrong": wrong_traces(run.stages.get(kind="generate")),
        "funnel": filtered.result["funnel"],
        "rows": {
            which: len(files.read_corpus_rows(filtered, which, 10**6, 0))
            for which in ("kept", "dropped")
        },
        "corpus": [corpus.manifest_hash(manifest), filtered.result["manifest_hash"]],
        "sources": {each["name"]: each["used"] for each in manifest["sources"]},
        "examples": len(examples),
        "errors": report["errors"], "checks": len(report["checks"]),
        "points": run.stages.get(kind="train").points.count(),
        "parent": student.parent and student.parent.name,
        "student": [student.content_hash, carried_hash(owner, student)],
        "alone": alone(run),
        "pages": pages(owner, run, student),
    }  # fmt: skip


def wrong_traces(stage: Any) -> list[str]:
    """Traces that were lost, doubled, or are not what their problem and seed make of them."""
    from evaluator.store import read_segment
    from webapp.benchmarks.models import PromptSet
    from webapp.benchmarks.services import read_prompts
    from webapp.runs import files

    prompts = {each.id: each for each in read_prompts(PromptSet.objects.get(name="sums"))}
    wanted = {(key, sample) for key in prompts for sample in range(SAMPLES)}
    wrong = []
    for path in files.accepted_segments(stage):
        for _, row in read_segment(files.segment_path(stage, path.name)):
            key = (row["problem_id"], row["sample"])
            seed = completion_seed(0, *key)
            right = row["seed"] == seed and row["text"] == written(prompts[key[0]].problem, seed)
            if key not in wanted or not right:
                wrong.append(str(key))
            wanted.discard(key)
    return wrong + [f"missing {key}" for key in sorted(wanted)]


def alone(run: Any) -> list[str]:
    """The hashes of corpus and student as one process makes them of the same traces."""
    from distiller import refining, sft
    from distiller.recipe import Recipe
    from webapp.benchmarks import services as benchmarks
    from webapp.benchmarks.models import Benchmark, PromptSet
    from webapp.checkpoints.models import Checkpoint
    from webapp.core import store
    from webapp.runs.launching import chats

    recipe = chats.located(Recipe.model_validate(run.config))
    prompts = list(benchmarks.read_prompts(PromptSet.objects.get(name="sums")))
    problems = refining.load_benchmarks(
        {"b": str(benchmarks.problems_file(Benchmark.objects.get(name="arithmetic")))}
    )
    base = store.fetch(Checkpoint.objects.get(name="base").path)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "traces.jsonl"
        with rows.open("w") as file:
            for prompt in prompts:
                for sample in range(SAMPLES):
                    seed = completion_seed(0, prompt.id, sample)
                    text = written(prompt.problem, seed)
                    trace = Completion(
                        prompt.id, sample, text, FinishReason.STOP, len(prompt.problem), 20, seed
                    )
                    file.write(json.dumps(trace.to_json()) + "\n")
        made = refining.refine(
            [rows], prompts=prompts, recipe=recipe, benchmarks=problems,
            out=Path(folder) / "filtered", jobs=1, base_model=base,
        )  # fmt: skip
        trained = sft.train(
            Path(made["corpus"]), base, recipe.training, Path(folder) / "student",
            resume=Path(folder) / "resume", device="cpu",
        )  # fmt: skip
        return [made["manifest_hash"], trained.content_hash]


def browser(owner: Any) -> Any:
    """Somebody who is signed in on the web host."""
    from django.test import Client

    client = Client(SERVER_NAME="127.0.0.1")
    client.force_login(owner)
    return client


def carried_hash(owner: Any, student: Any) -> str:
    """The content hash of the student as it is downloaded, without the card that comes with it."""
    from django.urls import reverse

    from distiller.checkpoints import content_hash

    answer = browser(owner).get(reverse("checkpoints:tar", args=[student.pk]))
    assert answer.status_code == 200, answer
    with tempfile.TemporaryDirectory() as folder:
        content = io.BytesIO(b"".join(answer.streaming_content))
        with tarfile.open(fileobj=content) as tar:
            tar.extractall(folder, filter="data")
        [top] = Path(folder).iterdir()
        (top / "README.md").unlink()
        return content_hash(top)


def pages(owner: Any, run: Any, student: Any) -> dict[str, Any]:
    """How the pages answer that show what lies in the store, and whether they show it."""
    from django.urls import reverse

    evaluation = run.evaluations.get()
    problem = evaluation.benchmark.problems.first()
    steps = run.stages.get(kind="filter").result["funnel"]["steps"]
    wrong = next(step["dropped"] for step in steps if step["step"] == "answer")
    asked = {
        "run": (reverse("runs:detail", args=[run.pk]), f"\N{MINUS SIGN}{wrong}<"),
        "kept": (reverse("runs:examples", args=[run.pk, "kept"]), "boxed{"),
        "checkpoint": (reverse("checkpoints:detail", args=[student.pk]), student.content_hash[:8]),
        "card": (reverse("checkpoints:card", args=[student.pk]), "arithmetic"),
        "evaluation": (reverse("leaderboard:evaluation", args=[evaluation.pk]), "student"),
        "report": (
            reverse("leaderboard:report_html", args=[evaluation.pk]), evaluation.measurement_hash,
        ),
        "sample": (reverse("leaderboard:raw", args=[evaluation.pk, problem.pk, 0]), ""),
    }  # fmt: skip
    client = browser(owner)
    found = {}
    for name, (address, text) in asked.items():
        answer = client.get(address)
        body = b"".join(answer.streaming_content) if answer.streaming else answer.content
        found[name] = [answer.status_code, text in body.decode()]
    return found
