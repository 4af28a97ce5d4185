"""From files of traces to kept ones: every trace once, nothing half-written, any number of jobs."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from distiller import refining
from distiller.commands.filtering import read_recipe
from distiller.errors import InputError
from distiller.inputs import read_problems
from evaluator.errors import InputError as EvaluatorInputError
from evaluator.records import Problem

GOLDEN = Path(__file__).parents[1] / "golden" / "filters" / "traces.jsonl"
PROBLEMS = [
    {"id": f"p{n}", "problem": f"What is {n} + {n}?", "answer": str(2 * n)} for n in (1, 2, 3)
]


def write(path: Path, rows: list[Any]) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def row(problem: str, sample: int, completion: str, finish: str | None = "stop") -> dict[str, Any]:
    return {
        "problem_id": problem,
        "sample": sample,
        "completion": completion,
        "finish_reason": finish,
    }


GOOD = row("p1", 0, "<think>a</think>\\boxed{2}")


def refine(folder: Path, traces: list[Path], recipe: dict[str, Any] | None = None, **options: Any):
    (folder / "recipe.json").write_text(json.dumps(recipe or {}))
    return refining.refine(
        traces,
        prompts=options.pop("prompts", None) or [Problem(**p) for p in PROBLEMS],
        recipe=read_recipe(folder / "recipe.json"),
        benchmarks=options.pop("benchmarks", {}),
        out=folder / "out",
        jobs=options.pop("jobs", 1),
        **options,
    )["funnel"]


TEXTS = st.sampled_from(
    [
        "<think>I add.</think>\\boxed{2}", "<think>I add.</think>\\boxed{4}", "<think>I add",
        "<think></think>\\boxed{2}", "\\boxed{2}", "<think>我们把它们加起来得到</think>\\boxed{2}",
        "<think>" + "again " * 300 + "</think>\\boxed{2}", "",
    ]
)  # fmt: skip
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["p1", "p2", "p3"]), st.integers(0, 3), TEXTS,
        st.sampled_from(["stop", "length", "error", None]),
    ),
    min_size=1, max_size=20,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_the_funnel_sums_and_every_trace_has_one_fate(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, int, str, str | None]]
) -> None:
    folder = tmp_path_factory.mktemp("f")
    source = write(folder / "t.jsonl", [row(*each) for each in drawn])
    choices = [
        {"name": name}
        for name in ("loops", "truncated", "format", "answer", "duplicates", "pass_rate", "select")
    ]
    funnel = refine(folder, [source], {"filters": choices})
    kept, dropped = rows(folder / "out/kept.jsonl"), rows(folder / "out/dropped.jsonl")
    assert funnel == json.loads((folder / "out/funnel.json").read_text())
    assert funnel["traces"] == len(drawn) == funnel["kept"] + funnel["dropped"]
    assert (funnel["kept"], funnel["dropped"]) == (len(kept), len(dropped))
    assert sum(funnel["reasons"].values()) == funnel["dropped"]
    before = funnel["traces"]
    for step in funnel["steps"]:
        assert step["kept"] + step["dropped"] == before
        assert step["dropped"] == sum(step["reasons"].values())
        before = step["kept"]
        found = [r["reason"] for r in dropped if r["step"] == step["step"]]
        assert {reason: found.count(reason) for reason in found} == step["reasons"]
    assert before == funnel["kept"]
    texts = sorted((r["problem_id"], r["sample"], r["completion"]) for r in kept + dropped)
    assert texts == sorted((p, n, text) for p, n, text, _ in drawn)


def test_golden_traces_end_with_the_same_reasons_through_files(tmp_path: Path) -> None:
    cases = [c for c in map(json.loads, GOLDEN.read_text().splitlines()) if "recipe" not in c]
    problems = write(
        tmp_path / "p.jsonl.gz",
        [{"id": c["id"], "problem": c["problem"], "answer": c["answer"]} for c in cases],
    )
    traces = [row(c["id"], 0, c["completion"], c.get("finish_reason")) for c in cases]
    half = len(traces) // 2
    sources = [
        write(tmp_path / "a.jsonl.gz", traces[:half]),
        write(tmp_path / "b.jsonl.zst", traces[half:]),
    ]
    # Each question alone: copies of one text under many ids are one question otherwise.
    names = ("loops", "truncated", "format", "mixed_language", "answer")
    recipe = {"filters": [{"name": name} for name in names]}
    refine(tmp_path, sources, recipe, prompts=read_problems(problems))
    found = {r["problem_id"]: r["reason"] for r in rows(tmp_path / "out/dropped.jsonl")}
    assert found == {c["id"]: c["reason"] for c in cases if c["reason"]}


def many(folder: Path, count: int) -> Path:
    text = "<think>I add the two numbers in my head, {n} times over.</think>\\boxed{{{answer}}}"
    return write(
        folder / "many.jsonl",
        [
            row(f"p{1 + n % 3}", n // 3, text.format(n=n, answer=2 + 2 * (n % 4)))
            for n in reversed(range(count))
        ],
    )


def test_two_processes_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    source = many(tmp_path, 1100)
    one = refine(tmp_path / "one", [source])
    two = refine(tmp_path / "two", [source], jobs=2)
    assert one == two
    assert one["kept"] > 10
    for name in ("kept.jsonl", "dropped.jsonl", "funnel.json"):
        assert (tmp_path / "one/out" / name).read_bytes() == (
            tmp_path / "two/out" / name
        ).read_bytes()


def test_other_thresholds_replace_what_was_written(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [row("p1", 0, "<think>a</think>the answer is 2")])
    assert refine(tmp_path, [source])["kept"] == 1
    strict = {"filters": [{"name": "format", "parameters": {"require_box": True}}]}
    assert refine(tmp_path, [source], strict)["reasons"] == {"no_box": 1}
    assert rows(tmp_path / "out/kept.jsonl") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "recipe.json", "t.jsonl"]


def test_near_copies_of_a_problem_are_one_question(tmp_path: Path) -> None:
    text = (
        "A farmer has {n} hens, and each of them lays two eggs on every single day of the week. "
        "How many eggs does the farmer collect{more} from Monday morning until Tuesday evening?"
    )
    prompts = [
        Problem("a", text.format(n=5, more=""), "20"),
        Problem("b", text.format(n=5, more=" altogether"), "20"),
        Problem("c", text.format(n=6, more=""), "24"),
    ]
    answers = {"a": 20, "b": 20, "c": 24}
    thoughts = "Two days with two eggs each make four eggs for every hen, and then I multiply."
    source = write(
        tmp_path / "t.jsonl",
        [row(name, 0, f"<think>{thoughts}</think>\\boxed{{{a}}}") for name, a in answers.items()],
    )
    refine(tmp_path, [source], prompts=prompts)
    found = {r["problem_id"]: r["reason"] for r in rows(tmp_path / "out/dropped.jsonl")}
    assert found == {"b": "near_duplicate"}
    recipe = {"filters": [{"name": "duplicates", "parameters": {"near_prompts": False}}]}
    assert refine(tmp_path, [source], recipe, prompts=prompts)["reasons"] == {
        "near_duplicate_prompt": 1
    }


def test_a_completion_counts_before_an_error_and_before_its_repetition(tmp_path: Path) -> None:
    drawn = [row("p1", 0, "", "error"), GOOD, GOOD, row("p2", 0, "", "error")]
    funnel = refine(tmp_path, [write(tmp_path / "t.jsonl", drawn)])
    assert funnel["steps"][0]["reasons"] == {"engine_error": 1, "same_key": 2}
    assert [r["completion"] for r in rows(tmp_path / "out/kept.jsonl")] == [GOOD["completion"]]


def test_half_a_character_is_no_text(tmp_path: Path, tiny_qwen: Path) -> None:
    """A tokenizer takes none; one such trace must not end the making of a corpus."""
    half = row("p2", 0, GOOD["completion"].replace("a", "\ud83d", 1))
    sources = [write(tmp_path / "t.jsonl", [GOOD, half])]
    funnel = refine(tmp_path, sources, {"filters": []}, base_model=tiny_qwen)
    assert funnel["steps"][0]["reasons"] == {"not_text": 1}
    assert funnel["kept"] == 1
    assert rows(tmp_path / "out/dropped.jsonl")[0]["completion"] == half["completion"]


def test_thoughts_in_a_field_of_their_own_are_put_between_the_tags(tmp_path: Path) -> None:
    apart = {**row("p1", 0, "\\boxed{2}"), "reasoning": "I add."}
    assert refine(tmp_path, [write(tmp_path / "t.jsonl", [apart])])["kept"] == 1
    (kept,) = rows(tmp_path / "out/kept.jsonl")
    assert kept["completion"].startswith("<think>")


def test_guesses_may_stand_among_the_traces(tmp_path: Path) -> None:
    good = "<think>I add.</think>\\boxed{{{}}}"
    guess = {"kind": "guess", "problem_id": "p1", "sample": 0, "completion": "\\boxed{2}"}
    drawn = [row("p1", 0, good.format(2)), row("p2", 0, good.format(4))]
    recipe = {"filters": [{"name": "guessable"}]}
    with_guess = write(tmp_path / "t.jsonl", [*drawn, guess])
    assert refine(tmp_path, [with_guess], recipe)["reasons"] == {"guessable": 1}
    with pytest.raises(InputError, match="guessable needs guesses"):
        refine(tmp_path, [write(tmp_path / "u.jsonl", drawn)], recipe)


def test_rule_and_judge_stand_side_by_side(tmp_path: Path) -> None:
    prompts = [*(Problem(**p) for p in PROBLEMS), Problem("q", "Why is it so?", "")]
    drawn = [row("p1", 0, "<think>a</think>\\boxed{3}"), row("q", 0, "<think>a</think>\\boxed{so}")]
    source = write(tmp_path / "t.jsonl", drawn)
    judged = {("p1", 0): "correct", ("q", 0): "correct"}
    recipe = {"filters": [{"name": "answer", "parameters": {"unchecked": "judge"}}]}
    beside = refining.Beside(judged=judged)
    refine(tmp_path, [source], recipe, prompts=prompts, beside=beside)
    kept, dropped = rows(tmp_path / "out/kept.jsonl"), rows(tmp_path / "out/dropped.jsonl")
    assert [(r["rule"], r["judge"]) for r in kept] == [("cannot_check", "correct")]
    assert [(r["rule"], r["judge"], r["reason"]) for r in dropped] == [
        ("wrong", "correct", "wrong")
    ]
    with pytest.raises(InputError, match="needs a judge's verdicts"):
        refine(tmp_path, [source], recipe, prompts=prompts)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ("{", r"t.jsonl, line 2: not a JSON value"),
        ("[1]", r"t.jsonl, line 2: not a JSON object"),
        ('{"problem_id": "p1", "sample": 1}', r"t.jsonl, line 2: completion must be a text"),
        ('{"completion": "x", "sample": 1}', r"t.jsonl, line 2: problem_id must be"),
        (json.dumps(row("zz", 0, "x")), r"t.jsonl, line 2: problem 'zz' is not among"),
        (json.dumps(row("p1", 1, "x", "tired")), r"t.jsonl, line 2: finish_reason 'tired'"),
        (json.dumps(row("p1", -1, "x")), r"t.jsonl, line 2: sample"),
        ('{"problem_id": "p1", "sample": 0.5, "completion": "x"}', r"t.jsonl, line 2: sample"),
        ("\xff", r"t.jsonl, line 2: not a JSON value"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_touched(bad: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept.jsonl").write_text("earlier\n")
    source = tmp_path / "t.jsonl"
    source.write_bytes(json.dumps(GOOD).encode() + b"\n" + bad.encode("latin-1") + b"\n")
    with pytest.raises((InputError, EvaluatorInputError), match=sentence):
        refine(tmp_path, [source])
    assert (tmp_path / "out" / "kept.jsonl").read_text() == "earlier\n"
    assert not (tmp_path / "out.part").exists()


def test_damaged_and_missing_files_are_one_sentence(tmp_path: Path) -> None:
    whole = write(tmp_path / "t.jsonl.gz", [GOOD] * 50)
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(whole.read_bytes()[:-12])
    frame = write(tmp_path / "t.jsonl.zst", [row("p1", n, f"x{n * n}") for n in range(99)])
    cut = tmp_path / "cut.jsonl.zst"
    cut.write_bytes(frame.read_bytes()[:-9])
    empty = write(tmp_path / "empty.jsonl", [])
    for path, sentence in [
        (torn, "torn.jsonl.gz: damaged"), (cut, "cut.jsonl.zst: damaged"),
        (tmp_path / "none.jsonl", "cannot be read"), (empty, "there is no trace"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=sentence):
            refine(tmp_path, [path])
    two_frames = tmp_path / "two.jsonl.zst"
    two_frames.write_bytes(frame.read_bytes() + zstandard.compress(json.dumps(GOOD).encode()))
    assert refine(tmp_path, [two_frames])["traces"] == 100


@pytest.mark.parametrize(
    ("rows_of", "sentence"),
    [
        ([{"id": "a", "problem": "x"}], r"line 1: answer must be"),
        ([{"id": "a", "answer": "x"}], r"line 1: problem must be"),
        ([{"id": "a", "problem": "x", "answer": "1"}] * 2, r"line 2: the id 'a'"),
        ([{"id": "", "problem": "x", "answer": "1"}], r"line 1: id and problem"),
        ([], "holds no problems"),
    ],
)
def test_bad_problems_are_named(rows_of: list[Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        read_problems(write(tmp_path / "p.jsonl", rows_of))


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "distiller", *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command_as_documented(tmp_path: Path) -> None:
    problems = write(tmp_path / "p.jsonl", PROBLEMS)
    traces = write(tmp_path / "t.jsonl.gz", [GOOD, row("p2", 0, "<think>a</think>\\boxed{5}")])
    given = ("filter", "--traces", traces, "--problems", problems, "--out", tmp_path / "o")
    done = command(*given)
    assert done.returncode == 0, done.stderr
    assert "wrong 1" in done.stdout
    assert {path.name for path in (tmp_path / "o").iterdir()} == {
        "kept.jsonl", "dropped.jsonl", "funnel.json", "contaminated.json",
    }  # fmt: skip
    (tmp_path / "r.json").write_text('{"filters": [{"name": "loops", "parameters": {"x": 1}}]}')
    done = command(*given, "--recipe", tmp_path / "r.json")
    assert done.returncode == 2
    assert "loops: x" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "o" / "kept.jsonl").exists()
    listed = command("filters").stdout
    assert "min_copies" in listed
    assert "per_prompt" in listed


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    problems = write(tmp_path / "p.jsonl", PROBLEMS)
    traces = write(
        tmp_path / "t.jsonl", [row("p1", n, f"<think>{n}</think>" * 99) for n in range(9)]
    )
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "from distiller.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "filter", "--traces", str(traces), "--problems",
         str(problems), "--out", str(tmp_path / "o")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "disk: no room to write" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl", "t.jsonl"]
