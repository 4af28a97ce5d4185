"""The stages and the command line, as a worker and a person start them."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distiller import corpus
from distiller.checkpoints import inspect
from distiller.recipe import FilterChoice, Recipe, demo_recipe
from distiller.toy import CHAT_TEMPLATE, USER, solve
from evaluator.benchmarks import arithmetic
from evaluator.child import Reporter, ShardRequest
from evaluator.records import Completion, FinishReason, Problem
from evaluator.store import SegmentWriter, read_segment
from tests.distiller.samples import recipe

PROMPTS = arithmetic.generate(12, seed=3)
LEASE = "ab12"


def write_problems(path: Path, problems: list[Problem]) -> Path:
    path.write_text("".join(json.dumps(problem.to_json()) + "\n" for problem in problems))
    return path


def write_traces(folder: Path) -> list[Path]:
    """Two samples a prompt: the right one twice; some wrong, cut off, failed or mixed."""
    spoilt = {
        0: ("<think>a</think>\\boxed{1000}", FinishReason.STOP),  # wrong
        1: ("<think>a", FinishReason.LENGTH),  # truncated
        2: ("", FinishReason.ERROR),
        3: ("<think>我们</think>\\boxed{" + PROMPTS[3].answer + "}", FinishReason.STOP),
        4: ("\\boxed{" + PROMPTS[4].answer + "}", FinishReason.STOP),  # no tags
    }
    with SegmentWriter(folder, prefix="0-a") as writer:
        for index, problem in enumerate(PROMPTS):
            for sample in range(2):
                good = (solve(problem.problem), FinishReason.STOP)
                text, finish = spoilt.get(index, good) if sample == 0 else good
                error = "down" if finish == FinishReason.ERROR else None
                row = Completion(problem.id, sample, text, finish, error=error)
                writer.append(row.to_json())
    return sorted(folder.glob("*.zst"))


def run_stage(
    folder: Path, spec: dict[str, Any], work: dict[str, Any], *, accepted: tuple[str, ...] = ()
) -> tuple[int, list[dict[str, Any]]]:
    """Start the child as a worker does; return its exit code and events."""
    folder.mkdir(exist_ok=True)
    common = {"stage_folder": str(folder), "segments_folder": str(folder / "segments")}
    (folder / "spec.json").write_text(json.dumps({**common, **spec}))
    shard = {"shard": 1, "lease": LEASE, "work": work, "accepted": accepted}
    done = subprocess.run(
        [sys.executable, "-m", "distiller", "stage", str(folder / "spec.json")],
        input=json.dumps(shard) + '\n{"end": true}\n',
        capture_output=True, text=True, check=False, start_new_session=True,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def filter_spec(tmp_path: Path, base: Path, **changes: Any) -> dict[str, Any]:
    chosen = recipe(
        base,
        filters=[
            {"name": "truncated"},
            {"name": "format"},
            {"name": "answer", "parameters": {"grader": "integer"}},
            {"name": "mixed_language"},
            {"name": "duplicates"},
        ],
        **changes,
    )
    planted = [Problem("x", PROMPTS[5].problem.replace("+", " + "), PROMPTS[5].answer)]
    return {
        "kind": "filter",
        "recipe": chosen.model_dump(mode="json"),
        "prompts_file": str(write_problems(tmp_path / "prompts.jsonl", PROMPTS)),
        "segment_files": [str(path) for path in write_traces(tmp_path / "traces")],
        "benchmark_files": {"held_out@1": str(write_problems(tmp_path / "b.jsonl", planted))},
        "base_model": str(base),
        "jobs": 1,
    }


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_filter_counts_every_trace_once(tiny_qwen: Path, tmp_path: Path) -> None:
    code, events = run_stage(tmp_path / "s", filter_spec(tmp_path, tiny_qwen), {})
    assert code == 0, events
    result = events[-1]["result"]
    out = tmp_path / "s" / LEASE
    funnel = json.loads((out / "funnel.json").read_text())
    assert result["funnel"] == funnel
    assert (funnel["traces"], funnel["kept"], funnel["dropped"]) == (24, 11, 13)
    steps = funnel["steps"]
    assert [step["step"] for step in steps] == [
        "drawn", "decontamination", "truncated", "format", "answer", "mixed_language",
        "duplicates", "length",
    ]  # fmt: skip
    before = 24
    for step in steps:
        assert step["kept"] + step["dropped"] == before
        assert step["dropped"] == sum(step["reasons"].values())
        before = step["kept"]
    reasons = {step["step"]: step["reasons"] for step in steps}
    assert reasons["drawn"] == {"engine_error": 1}
    assert reasons["decontamination"] == {"contaminated": 2}
    assert reasons["truncated"] == {"truncated": 1}
    assert reasons["format"] == {"not_opened": 1}
    assert reasons["answer"] == {"wrong": 1}
    assert reasons["mixed_language"] == {"mixed_language": 1}
    assert reasons["duplicates"] == {"duplicate": 6}
    kept, dropped = rows(out / "kept.jsonl"), rows(out / "dropped.jsonl")
    assert len(kept) == before == 11
    assert len(kept) + len(dropped) == 24
    assert all(row["reason"] for row in dropped)
    assert {(r["problem_id"], r["sample"]) for r in kept + dropped} == {
        (problem.id, sample) for problem in PROMPTS for sample in range(2)
    }
    contaminated = json.loads((out / "contaminated.json").read_text())
    assert [hit["problem_id"] for hit in contaminated["contaminated"]] == [PROMPTS[5].id]
    examples, manifest = corpus.read(Path(result["corpus"]))
    assert len(examples) == manifest["examples"] == 11
    assert corpus.manifest_hash(manifest) == result["manifest_hash"]


def test_decontamination_can_be_turned_off(tiny_qwen: Path, tmp_path: Path) -> None:
    spec = filter_spec(tmp_path, tiny_qwen, decontaminate=False)
    code, events = run_stage(tmp_path / "s", spec, {})
    assert code == 0
    assert "decontamination" not in [s["step"] for s in events[-1]["result"]["funnel"]["steps"]]


def test_filters_that_leave_nothing_fail_in_a_sentence(tiny_qwen: Path, tmp_path: Path) -> None:
    spec = filter_spec(tmp_path, tiny_qwen, training={"max_length_tokens": 8})
    code, events = run_stage(tmp_path / "s", spec, {})
    assert code == 1
    assert events[-1]["event"] == "failed"
    assert "none of 11 traces" in events[-1]["error"]
    assert not events[-1]["transient"]
    assert len(rows(tmp_path / "s" / LEASE / "dropped.jsonl")) == 13


def test_generate_goes_on_after_accepted_segments_and_train_makes_a_student(
    tiny_qwen: Path, tmp_path: Path
) -> None:
    sampling = {"temperature": 0.8, "max_tokens": 4}
    chosen = recipe(tiny_qwen, generation={"samples": 2, "sampling": sampling})
    spec = {
        "kind": "generate",
        "recipe": chosen.model_dump(mode="json"),
        "prompts_file": str(write_problems(tmp_path / "p.jsonl", PROMPTS)),
        "engine": {"name": "transformers", "model": str(tiny_qwen)},
    }
    folder = tmp_path / "g"
    ids = [problem.id for problem in PROMPTS[:3]]
    earlier = SegmentWriter(folder / "segments", prefix="old")
    earlier.append(Completion(ids[0], 1, "done before", FinishReason.STOP).to_json())
    sealed = earlier.seal()
    assert sealed is not None
    code, events = run_stage(folder, spec, {"problem_ids": ids}, accepted=(sealed.name,))
    assert code == 0, events
    drawn = [
        (row["problem_id"], row["sample"])
        for event in events
        if event["event"] == "segment"
        for _, row in read_segment(folder / "segments" / event["name"], sha256=event["sha256"])
    ]
    wanted = {(problem_id, sample) for problem_id in ids for sample in range(2)}
    assert len(drawn) == len(set(drawn)) == 5
    assert set(drawn) == wanted - {(ids[0], 1)}


def test_train_stage(tiny_qwen: Path, tmp_path: Path) -> None:
    filtering = filter_spec(tmp_path, tiny_qwen)
    _, events = run_stage(tmp_path / "f", filtering, {})
    chosen = recipe(tiny_qwen, training={"epochs": 2, "batch_size": 4, "max_length_tokens": 99})
    spec = {
        "kind": "train",
        "recipe": chosen.model_dump(mode="json"),
        "corpus": events[-1]["result"]["corpus"],
        "base_model": str(tiny_qwen),
        "device": "cpu",
        "resume": str(tmp_path / "resume"),
    }
    code, events = run_stage(tmp_path / "t", spec, {})
    assert code == 0, events
    result = events[-1]["result"]
    assert result["steps"] == 6
    assert [e["step"] for e in events if e["event"] == "metric"] == [1, 2, 3, 4, 5, 6]
    student = Path(result["checkpoint"])
    assert student == tmp_path / "t" / LEASE / "checkpoint"
    assert inspect(student).content_hash == result["content_hash"]
    assert inspect(student).has_chat_template


def test_preflight_stage_finds_faults_before_anything_is_drawn(
    tiny_qwen: Path, tmp_path: Path
) -> None:
    def spec(limit: int) -> dict[str, Any]:
        wanted = {"epochs": 1, "max_length_tokens": limit}
        planted = [Problem("x", PROMPTS[5].problem, PROMPTS[5].answer)]
        return {
            "kind": "preflight",
            "recipe": recipe(tiny_qwen, training=wanted).model_dump(mode="json"),
            "prompts_file": str(write_problems(tmp_path / "p.jsonl", PROMPTS)),
            "benchmark_files": {"held@1": str(write_problems(tmp_path / "b.jsonl", planted))},
            "base_model": str(tiny_qwen),
        }

    code, events = run_stage(tmp_path / "s", spec(200), {})
    assert code == 0, events
    assert events[-1]["result"] == {"warnings": 1}
    report = json.loads((tmp_path / "s" / "preflight.json").read_text())
    levels = {check["name"]: check["level"] for check in report["checks"]}
    assert levels["contamination"] == "warning"
    assert levels["packing"] == "ok"
    assert report["figures"]["parameters"] > 0
    assert "memory_bytes" in report["figures"]

    code, events = run_stage(tmp_path / "t", spec(2000), {})
    assert code == 1
    assert events[-1]["event"] == "failed"
    assert "preflight: context: an example may have 2000 tokens" in events[-1]["error"]
    assert not events[-1]["transient"]
    assert json.loads((tmp_path / "t" / "preflight.json").read_text())["errors"] == 1


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "distiller", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_commands_filter_preflight_and_train(tiny_qwen: Path, tmp_path: Path) -> None:
    spec = filter_spec(tmp_path, tiny_qwen)
    prompts = spec["prompts_file"]
    spec["recipe"]["prompts"]["set"] = prompts
    spec["recipe"]["training"]["max_length_tokens"] = 200
    recipe_file = tmp_path / "recipe.json"
    recipe_file.write_text(json.dumps(spec["recipe"]))
    done = command("preflight", str(recipe_file))
    assert done.returncode == 0, done.stderr
    assert "ok      ending token: <|im_end|> (1) ends every response" in done.stdout
    assert "⟦<think>" in done.stdout
    done = command(
        "filter", "--traces", spec["segment_files"][0], "--problems", prompts,
        "--recipe", str(recipe_file), "--out", str(tmp_path / "out"), "--jobs", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "engine_error 1" in done.stdout
    student = tmp_path / "student"
    folder = str(tmp_path / "out" / "corpus")
    done = command("train", str(recipe_file), "--corpus", folder, "--out", str(student))
    assert done.returncode == 0, done.stderr
    assert inspect(student).architecture == "Qwen2ForCausalLM"


def test_train_looks_for_faults_first(tiny_qwen: Path, tmp_path: Path) -> None:
    """A sentence each, exit code 2 and nothing written; --no-preflight goes on regardless."""
    spec = filter_spec(tmp_path, tiny_qwen)
    run_stage(tmp_path / "f", spec, {})
    folder, file = str(tmp_path / "f" / LEASE / "corpus"), tmp_path / "r.json"
    other = Path(shutil.copytree(tiny_qwen, tmp_path / "other"))
    config = other / "tokenizer_config.json"
    told = json.loads(config.read_text())
    (other / "chat_template.jinja").unlink(missing_ok=True)
    config.write_text(json.dumps(told | {"chat_template": CHAT_TEMPLATE.replace(USER, f"{USER} ")}))
    limits = json.loads((other / "config.json").read_text()) | {"max_position_embeddings": 8}
    (other / "config.json").write_text(json.dumps(limits))
    file.write_text(json.dumps(spec["recipe"] | {"base": str(other)}))
    student = tmp_path / "student"
    arguments = ("train", str(file), "--corpus", folder, "--out", str(student))
    done = command(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in lines] == ["tokenizer", "context"]
    assert "made with another chat template than the base's" in lines[0]
    assert "but the base has 8 positions" in lines[1]
    assert not student.exists()
    done = command(*arguments, "--no-preflight")
    assert done.returncode == 2  # the loop's own refusal
    assert done.stderr.rstrip().endswith("set training.rope, or use another base.")
    assert not student.exists()
    done = command("train", str(file), "--corpus", str(tmp_path), "--out", str(student))
    assert done.returncode == 2
    assert "cannot be read" in done.stderr
    assert not student.exists()


def test_preflight_and_corpus_commands(tiny_qwen: Path, tmp_path: Path) -> None:
    chosen = recipe(tiny_qwen, training={"max_length_tokens": 200}).model_dump(mode="json")
    chosen["prompts"]["set"] = str(write_problems(tmp_path / "p.jsonl", PROMPTS))
    traces_of = [
        {"problem_id": p.id, "sample": 0, "completion": solve(p.problem), "problem": p.problem,
         "answer": p.answer, "finish_reason": "stop"}
        for p in PROMPTS
    ]  # fmt: skip
    kept = tmp_path / "kept.jsonl"
    kept.write_text("".join(json.dumps(row) + "\n" for row in traces_of))
    chats = tmp_path / "chats.jsonl"
    chats.write_text('{"prompt": "hello", "response": "hi"}\n' * 2)
    chosen["corpus"]["general"] = [{"file": str(chats)}]
    file = tmp_path / "r.json"
    file.write_text(json.dumps(chosen))
    out = tmp_path / "c"
    done = command("corpus", str(file), "--traces", str(kept), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "traces: 6 of 12 used (75.0% of the examples" in done.stdout
    assert "general: 2 of 2 used (25.0% of the examples" in done.stdout
    assert len(corpus.read(out)[0]) == 8
    done = command("preflight", str(file), "--corpus", str(out), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["figures"]["examples"] == 8
    assert [piece["supervised"] for piece in report["example"]] == [False, True]
    chosen["training"]["max_length_tokens"] = 12
    file.write_text(json.dumps(chosen))
    done = command("preflight", str(file), "--traces", str(kept))
    assert done.returncode == 2
    assert "ERROR   cut-off: 12 of 12 examples are longer than 12 tokens" in done.stdout
    assert "nothing should be trained" in done.stderr
    kept.write_text('{"problem_id": "a"}\n')
    done = command("corpus", str(file), "--traces", str(kept), "--out", str(tmp_path / "d"))
    assert done.returncode == 2
    assert "kept.jsonl: line 1 is no kept trace ('completion' is missing)" in done.stderr
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ("[]", "recipe: the whole: Input should be"),
        ('{"teacher": "t"}', "recipe: base: Field required (2 more)."),
        ('{"colour": 1}', "recipe: "),
    ],
)
def test_a_bad_recipe_is_one_sentence_and_exit_code_two(
    text: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "r.json").write_text(text)
    done = command("preflight", str(tmp_path / "r.json"))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_recipe_resolves_and_names_known_filters() -> None:
    from distiller import filters

    made = demo_recipe(teacher="t", base="b", student="s", prompts="p")
    assert Recipe.model_validate(made.model_dump(mode="json")) == made
    filters.create(made.filters)
    assert FilterChoice(name="answer", parameters={"grader": "integer"}) in made.filters


def test_the_torch_free_parts_load_no_torch() -> None:
    modules = "recipe, checkpoints, filters, decontamination, corpus, preflight, refining, stages"
    probe = f"from distiller import {modules}\nimport sys\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_the_train_stage_runs_as_many_processes_as_its_spec_says(
    tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That two over gloo learn what one learns is shown in test_sft.py."""
    from distiller import sft, stages

    asked: dict[str, Any] = {}

    class CalledError(Exception):
        pass

    def train(*_: Any, **options: Any) -> None:
        asked.update(options)
        raise CalledError

    monkeypatch.setattr(sft, "train", train)
    spec = {
        "recipe": recipe(tiny_qwen).model_dump(mode="json"), "corpus": "c", "device": "cpu",
        "base_model": str(tiny_qwen), "stage_folder": str(tmp_path), "processes": 2,
        "resume": str(tmp_path / "resume"),
    }  # fmt: skip
    request = ShardRequest(1, LEASE, {}, ())
    report = Reporter(io.StringIO(), request)
    with pytest.raises(CalledError):
        stages.TrainStage(spec, report).run(request, report)
    assert (asked["processes"], asked["device"]) == (2, "cpu")
    assert asked["resume"] == tmp_path / "resume"
