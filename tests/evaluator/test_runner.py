"""Drawing and grading: every key once, same seeds, interrupted or not; and the stages around it."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluator import benchmarks, runner
from evaluator.benchmarks.arithmetic import generate
from evaluator.cli import main
from evaluator.engines import create, replay
from evaluator.engines.base import Request
from evaluator.engines.replay import ReplayEngine, read_completions
from evaluator.errors import InputError, TransientEngineError
from evaluator.graders.pool import GraderPool
from evaluator.passport import Passport
from evaluator.protocol import Protocol, Sampling
from evaluator.records import Completion, Outcome, completion_seed
from evaluator.store import Store, read_segment

REPOSITORY = Path(__file__).parents[2]
SPEC = benchmarks.get("arithmetic")
PROBLEMS = generate(6, seed=3)
PROTOCOL = Protocol(samples=3, seed=9, sampling=Sampling(temperature=1.0, max_tokens=12))


def answers(path: Path, *, samples: int = 3) -> Path:
    """Completions of which sample 0 is right, sample 1 wrong and sample 2 without an answer."""
    rows = []
    for problem in PROBLEMS:
        texts = [f"So \\boxed{{{problem.answer}}}", "So \\boxed{12345}", "I do not know."]
        rows += [
            {"problem_id": problem.id, "sample": sample, "completion": texts[sample]}
            for sample in range(samples)
        ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Failing(ReplayEngine):
    """Replays until its connection breaks."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        for number, completion in enumerate(super().generate(requests, sampling)):
            if number == 7:
                raise TransientEngineError("engine: the connection broke.")
            yield completion


def draw(store: Store, engine: Any, seen: list[tuple[int, int, int]] | None = None) -> str:
    return runner.draw(
        PROBLEMS,
        prompt=SPEC.prompt,
        protocol=PROTOCOL,
        samples=3,
        engine=engine,
        writer=store.writer(),
        done=store.keys(),
        on_progress=lambda *counts: seen.append(counts) if seen is not None else None,
    )


def grade(rows: Any, on_row: Any = lambda _: None, graded: Any = ()) -> dict[str, Any]:
    with GraderPool(1) as pool:
        return runner.grade(
            PROBLEMS,
            rows,
            benchmark=SPEC,
            protocol=PROTOCOL,
            samples=3,
            pool=pool,
            passport=Passport({}, {}),
            on_row=on_row,
            graded=graded,
        )


def test_what_an_engine_gave_before_it_failed_is_kept_and_not_asked_again(tmp_path: Path) -> None:
    file = answers(tmp_path / "answers.jsonl")
    store = Store(tmp_path / "segments")
    with pytest.raises(TransientEngineError):
        draw(store, Failing(file))
    assert len(store.keys()) == 7
    seen: list[tuple[int, int, int]] = []
    draw(store, ReplayEngine(file), seen)
    assert [done for done, _, _ in seen] == list(range(7, 19))
    rows = [row for path in store.folder.iterdir() for _, row in read_segment(path)]
    assert len(rows) == len(store.keys()) == 18


def test_seeds_come_from_the_key_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    engine = create({"name": "transformers", "model": str(tiny_checkpoint)})
    store = Store(tmp_path)
    rendered = draw(store, engine)
    assert rendered == f"<user>{SPEC.prompt.replace('{problem}', PROBLEMS[0].problem)}<assistant>"
    for row in store.rows():
        assert row["seed"] == completion_seed(9, row["problem_id"], row["sample"])


def test_a_mark_of_utf_8_before_the_first_row_is_none_of_it(tmp_path: Path) -> None:
    plain = answers(tmp_path / "a.jsonl")
    marked = tmp_path / "b.jsonl"
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    assert read_completions(marked) == read_completions(plain)


def test_every_sample_asked_for_has_one_outcome(tmp_path: Path) -> None:
    completions = read_completions(answers(tmp_path / "a.jsonl"))
    rows = [completion.to_json() for completion in completions]
    metrics = grade([*rows, {**rows[0], "text": "a later row of a key does not count"}])
    assert metrics["outcomes"] == {
        **dict.fromkeys(map(str, Outcome), 0), "correct": 6, "wrong": 6, "no_answer": 6
    }  # fmt: skip
    assert metrics["pass@1"]["value"] == pytest.approx(1 / 3)
    assert metrics["complete"]
    missing = grade([row for row in rows if row["problem_id"] != PROBLEMS[0].id])
    assert missing["outcomes"]["engine_error"] == 3
    assert not missing["complete"]
    failed = grade([*rows[1:], {**rows[0], "text": "", "error": "the connection broke"}])
    assert failed["outcomes"]["engine_error"] == 1
    with pytest.raises(InputError, match="problem 'other' is not in this benchmark"):
        grade([{**rows[0], "problem_id": "other"}])


def test_grading_goes_on_after_verdicts_but_not_after_errors(tmp_path: Path) -> None:
    rows = [c.to_json() for c in read_completions(answers(tmp_path / "a.jsonl"))]
    verdicts: list[dict[str, Any]] = []
    whole = grade(rows, verdicts.append)
    assert set(verdicts[0]) == {"problem_id", "sample", "outcome", "answer", "reason"}
    earlier = [*verdicts[:8], {**verdicts[8], "outcome": "grader_error"}]
    again: list[dict[str, Any]] = []
    assert grade(rows, again.append, earlier) == whole
    assert again == verdicts[8:]


def test_an_answer_that_a_database_cannot_hold_is_made_storable() -> None:
    hostile = Completion(PROBLEMS[0].id, 0, "\\boxed{1\x002\ud800}").to_json()
    verdicts: list[dict[str, Any]] = []
    grade([hostile], verdicts.append)
    answer = verdicts[0]["answer"]
    assert answer.encode()
    assert "\x00" not in answer
    assert {"1", "2"} <= set(answer), "what can be kept is kept"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no completion in it"),
        (b"nonsense", "line 1: not a JSON value"),
        (b"[" * 100_000, "line 1: not a JSON value"),
        (b"[1]", "line 1: not a JSON object"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"completion": "x"}', "line 1: problem_id must be"),
        (b'{"problem_id": "a"}', "line 1: completion must be a text"),
        (b'{"problem_id": "a", "completion": 3}', "line 1: completion must be a text"),
        (b'{"problem_id": "a", "completion": "", "sample": -1}', "sample must be a whole number"),
        (b'{"problem_id": "a", "completion": "", "sample": true}', "sample must be a whole number"),
        (b'{"problem_id": "a", "completion": "", "finish_reason": "x"}', "finish_reason 'x'"),
        (
            b'{"problem_id": "a", "completion": "", "finish_reason": [1]}',
            "finish_reason .1. is not",
        ),
        (b'{"problem_id": "a", "completion": "", "sample": 2147483648}', "sample must be .* below"),
        (
            b'{"problem_id": "a", "completion": "", "prompt_tokens": 1%s}' % (b"0" * 30),
            "below 2..31",
        ),
        (b'{"problem_id": "a", "completion": "", "seed": 1%s}' % (b"0" * 30), "below 2..63"),
        (b'{"problem_id": "a", "completion": "", "seed": 1%s}' % (b"0" * 5000), "not a JSON value"),
        (b'{"problem_id": "a", "completion": "", "reasoning": 1}', "reasoning must be a text"),
        (
            b'{"problem_id": "a", "completion": ""}\n'
            b'{"problem_id": "a", "completion": "", "sample": 0}',
            "line 2: sample 0 of problem 'a' occurs a second time",
        ),
    ],
)
def test_a_malformed_file_of_completions_is_refused_by_line_and_field(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    for name, data in (("a.jsonl", content), ("a.jsonl.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=complaint):
            read_completions(tmp_path / name)
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"{}" * 999)[:-5])
    with pytest.raises(InputError, match="damaged"):
        read_completions(tmp_path / "b.gz")


# Reads a file with at most 256 MiB above what the imports took, and says why it is refused.
LIMITED = """
import pathlib, resource, sys
from evaluator.engines.replay import read_completions
from evaluator.errors import InputError
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + (256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    read_completions(pathlib.Path(sys.argv[1]))
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("text", [b"\n", b"x", b" "])
def test_a_packed_bomb_is_refused_in_little_memory(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(text * (32 << 20)) * 320)  # 10 GiB in as many MB
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "split it into several files" in done.stdout


def test_the_limits_are_those_of_text_lines_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [b'{"problem_id": "a", "completion": "' + b"x" * n + b'"}\n' for n in (5, 0, 99)]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(rows))
    sizes = {"MOST_BYTES": sum(map(len, rows)), "MOST_LINES": 3, "MOST_LINE_BYTES": len(rows[2])}
    for name, value in sizes.items():
        monkeypatch.setattr(replay, name, value)
    assert len(read_completions(path)) == 3
    for name, value in sizes.items():
        monkeypatch.setattr(replay, name, value - 1)
        with pytest.raises(InputError, match="split it"):
            read_completions(path)
        monkeypatch.setattr(replay, name, value)


class Child:
    """A stage's process, spoken to as a worker does."""

    def __init__(self, folder: Path, spec: dict[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        self.segments = folder / "segments"
        problems = folder / "problems.jsonl"
        problems.write_text("".join(json.dumps(p.to_json()) + "\n" for p in PROBLEMS))
        path = folder / f"{spec['kind']}.json"
        common = {
            "stage_folder": str(folder),
            "segments_folder": str(self.segments),
            "benchmark": "arithmetic",
            "problems_file": str(problems),
            "protocol": PROTOCOL.model_dump(mode="json"),
        }
        path.write_text(json.dumps({**common, **spec}))
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "evaluator", "stage", str(path)],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def send(self, **message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def events(self, until: str) -> list[dict[str, Any]]:
        assert self.process.stdout is not None
        events: list[dict[str, Any]] = []
        for line in self.process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] in (until, "failed"):
                break
        assert events, self.log.read_text()
        assert events[-1]["event"] == until, (events[-1], self.log.read_text())
        return events

    def end(self) -> None:
        self.process.communicate(json.dumps({"end": True}) + "\n", timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


def test_stages_do_shards_report_segments_and_go_on_after_accepted_ones(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    engine = {"name": "transformers", "model": str(tiny_checkpoint)}
    child = Child(tmp_path, {"kind": "evaluate", "engine": engine})
    described = child.events("ready")[0]["engine"]
    assert described["name"] == "transformers"
    ids = [problem.id for problem in PROBLEMS]
    child.send(shard=1, lease="aa", work={"problem_ids": ids[:4]})
    first = child.events("done")
    child.kill()  # after one of two shards
    [segment] = [event for event in first if event["event"] == "segment"]
    assert segment["rows"] == 12
    assert segment["name"].startswith("00000001-aa-")
    progress = [event for event in first if event["event"] == "progress"][-1]
    assert (progress["done"], progress["total"], progress["unit"]) == (12, 12, "completions")
    # Another lease of the same shard, its first segment accepted, has nothing to draw; the other
    # shard is drawn, and all of it can be graded.
    child = Child(tmp_path, {"kind": "evaluate", "engine": engine})
    child.events("ready")
    child.send(shard=1, lease="bb", work={"problem_ids": ids[:4]}, accepted=[segment["name"]])
    again = child.events("done")
    assert not [event for event in again if event["event"] == "segment"]
    assert again[-1]["result"] == first[-1]["result"]
    told = [event for event in again if event["event"] == "progress"][-1]
    assert told["tokens"] == progress["tokens"] > 0
    child.send(shard=2, lease="cc", work={"problem_ids": ids[4:]})
    other = [event for event in child.events("done") if event["event"] == "segment"]
    child.end()
    files = [str(tmp_path / "segments" / event["name"]) for event in (segment, *other)]
    spec = {"segment_files": files, "engine": described, "jobs": 1}
    child = Child(tmp_path / "grade", {"kind": "grade", **spec})
    child.events("ready")
    child.send(shard=1, lease="dd", work={})
    graded = child.events("done")
    child.end()
    metrics = graded[-1]["result"]["metrics"]
    assert sum(metrics["outcomes"].values()) == 18
    assert metrics["complete"]
    assert sum(event["rows"] for event in graded if event["event"] == "segment") == 18


def test_a_worker_s_metrics_are_the_command_line_s(tmp_path: Path) -> None:
    """One set of completions, scored by `score` and by the stages: the same metrics.json."""
    file, problems = answers(tmp_path / "a.jsonl"), tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps(problem.to_json()) + "\n" for problem in PROBLEMS))
    protocol = tmp_path / "protocol.json"
    protocol.write_text(PROTOCOL.model_copy(update={"samples": 3}).model_dump_json())
    output = tmp_path / "metrics.json"
    arguments = [
        "score", "--benchmark", "arithmetic", "--problems", problems, "--completions", file,
        "--protocol", protocol, "--output", output, "--jobs", 1,
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["evaluator", *map(str, arguments)])
        assert main() == 0
    child = Child(tmp_path, {"kind": "import", "completions_file": str(file)})
    child.send(shard=1, lease="aa", work={})
    names = [each["name"] for each in child.events("done") if each["event"] == "segment"]
    child.end()
    files = [str(child.segments / name) for name in names]
    spec = {"kind": "grade", "segment_files": files, "engine": {"name": "replay"}, "jobs": 1}
    child = Child(tmp_path / "grade", spec)
    child.send(shard=2, lease="bb", work={})
    metrics = child.events("done")[-1]["result"]["metrics"]
    child.end()
    assert metrics == json.loads(output.read_text())


def test_an_import_takes_all_rows_or_none(tmp_path: Path) -> None:
    file = answers(tmp_path / "a.jsonl")
    child = Child(tmp_path / "good", {"kind": "import", "completions_file": str(file)})
    child.send(shard=1, lease="aa", work={})
    assert child.events("done")[-1]["result"] == {"rows": 18}
    child.end()
    for name, row, complaint in (
        ("unknown", {"problem_id": "other", "completion": "x"}, "problem 'other' is not in"),
        ("beyond", {"problem_id": PROBLEMS[0].id, "sample": 3, "completion": "x"}, "a sample 3"),
    ):
        bad = tmp_path / f"{name}.jsonl"
        bad.write_text(file.read_text() + json.dumps(row))
        child = Child(tmp_path / name, {"kind": "import", "completions_file": str(bad)})
        child.send(shard=1, lease="aa", work={})
        event = child.events("failed")[-1]
        child.process.communicate()
        assert complaint in event["error"]
        assert event["transient"] is False
        assert not child.segments.exists() or not list(child.segments.iterdir())
