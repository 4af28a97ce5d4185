"""``score``, ``compare``, ``diff-protocol`` and ``rescore`` as a person uses them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluator.cli import main

Run = Callable[..., tuple[int, str, str]]

PROBLEMS = [
    {"id": "a", "problem": "one half?", "answer": "\\frac12", "subject": "Algebra", "level": 1},
    {"id": "b", "problem": "two?", "answer": "2", "subject": "Algebra", "level": 2},
    {"id": "c", "problem": "a root?", "answer": "\\sqrt{3}", "subject": "Number", "level": 2},
]


def _rows(answers: dict[str, Sequence[str]]) -> list[dict[str, Any]]:
    return [
        {"problem_id": key, "sample": sample, "completion": f"So \\boxed{{{answer}}}."}
        for key, drawn in answers.items()
        for sample, answer in enumerate(drawn)
    ]


GOOD = {"a": ["0.5", "1/2"], "b": ["2", "2"], "c": ["\\sqrt3", "3"]}
BAD = {"a": ["0.5", "1/3"], "b": ["2", "3"], "c": ["3", "3"]}


@pytest.fixture
def evaluator(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["evaluator", *map(str, arguments)])
        capsys.readouterr()
        code = main()
        done = capsys.readouterr()
        return code, done.out, done.err

    return run


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return _write(tmp_path / "problems.jsonl", PROBLEMS)


def _score(evaluator: Run, problems: Path, answers: Any, name: str, *more: object) -> Path:
    folder = problems.parent
    completions = _write(folder / f"{name}.jsonl", _rows(answers))
    output = folder / f"{name}.json"
    code, _, err = evaluator(
        "score", "--problems", problems, "--completions", completions, "--output", output,
        "--jobs", 1, *more,
    )  # fmt: skip
    assert code == 0, err
    return output


def test_score_writes_the_metrics_of_the_definition(evaluator: Run, problems: Path) -> None:
    metrics = json.loads(_score(evaluator, problems, GOOD, "good").read_text())
    assert set(metrics) >= {
        "schema", "benchmark", "problems", "samples", "measurement_hash", "run_fingerprint",
        "complete", "outcomes", "pass@1", "pass@k", "cons@k", "cons@k_string", "tokens", "by",
    }  # fmt: skip
    assert (metrics["benchmark"], metrics["problems"], metrics["samples"]) == ("custom", 3, 2)
    assert metrics["pass@1"]["value"] == pytest.approx(5 / 6)
    assert metrics["pass@k"]["2"] == 1.0
    assert metrics["cons@k"] == {"1": pytest.approx(5 / 6), "2": pytest.approx(5 / 6), "64": None}
    assert metrics["cons@k_string"]["2"] == pytest.approx(5 / 6)
    assert sum(metrics["outcomes"].values()) == 6
    assert metrics["by"]["level"]["2"]["value"] == pytest.approx(3 / 4)
    assert metrics["measurement"]["policy"]["rounding"] is False
    assert metrics["run"]["samples"] == 2


def test_a_preset_scores_what_the_file_holds_and_samples_asks_for_more(
    evaluator: Run, problems: Path
) -> None:
    quick = json.loads(_score(evaluator, problems, GOOD, "q", "--protocol", "quick").read_text())
    assert quick["complete"]
    assert quick["samples"] == 2
    more = json.loads(_score(evaluator, problems, GOOD, "m", "--samples", 3).read_text())
    assert not more["complete"]
    assert more["outcomes"]["engine_error"] == 3
    assert more["pass@1"]["value"] is None
    assert more["bounds"] == {"low": pytest.approx(5 / 9), "high": pytest.approx(8 / 9)}


@pytest.mark.parametrize("protocol", [(), ("--protocol", "r1")])
def test_thoughts_that_were_cut_off_before_any_tag_are_no_answer(
    evaluator: Run, problems: Path, protocol: tuple[str, ...]
) -> None:
    """Most responses were cut off; those that end show that their thoughts were opened for them."""
    cut = [
        {"problem_id": key, "sample": sample, "completion": f"perhaps \\boxed{{{answer}}}",
         "finish_reason": "length"}
        for key, answer in (("a", "0.5"), ("b", "2"), ("c", "3")) for sample in range(20)
    ]  # fmt: skip
    whole = {"problem_id": "b", "sample": 20, "completion": "\\boxed{1}</think>\\boxed{2}"}
    completions = _write(problems.parent / "cut.jsonl", [*cut, whole])
    output = problems.parent / "cut.json"
    code, _, err = evaluator(
        "score", "--problems", problems, "--completions", completions, "--output", output,
        "--jobs", 1, *protocol,
    )  # fmt: skip
    assert code == 0, err
    outcomes = json.loads(output.read_text())["outcomes"]
    assert (outcomes["truncated"], outcomes["correct"], outcomes["wrong"]) == (60, 1, 0)


def test_compare_is_paired_and_gives_no_figure_that_no_spread_tells_of(
    evaluator: Run, problems: Path
) -> None:
    good = _score(evaluator, problems, GOOD, "good")
    bad = _score(evaluator, problems, BAD, "bad")
    output = problems.parent / "difference.json"
    code, out, err = evaluator("compare", good, bad, "--output", output)
    assert code == 0, err
    assert "warning" not in out
    made = json.loads(output.read_text())
    # Differences of the problem means: 1 − 1/2, 1 − 1/2, 1/2 − 0.
    assert made["difference"] == pytest.approx(0.5)
    assert made["se_paired"] == 0
    assert made["p"] == pytest.approx(2 / 2**3)
    assert made["resolvable"] is None, "no spread tells of it"
    assert made["low"] < 0 < made["difference"] < made["high"], "three problems tell of little"
    back = problems.parent / "back.json"
    assert evaluator("compare", bad, good, "--output", back)[0] == 0
    assert json.loads(back.read_text())["difference"] == pytest.approx(-0.5)
    assert "smallest resolvable difference" not in out


def test_compare_warns_of_other_measurements_and_names_the_fields(
    evaluator: Run, problems: Path
) -> None:
    recipe = problems.parent / "loose.yaml"
    recipe.write_text(
        "policy: {rounding: true}\nsampling: {temperature: 1.0}\nseed: 4\nsamples: 2\n"
    )
    good = _score(evaluator, problems, GOOD, "good", "--protocol", "r1")
    loose = _score(evaluator, problems, GOOD, "loose", "--protocol", recipe)
    code, out, _ = evaluator("compare", good, loose)
    assert code == 0
    text = " ".join(out.split())
    assert "warning: measured differently" in text
    assert "policy.rounding, sampling.temperature." in text
    assert "note: the runs differ in seed." in text
    code, out, _ = evaluator("diff-protocol", good, recipe)
    assert code == 0
    assert "no field differs." in evaluator("diff-protocol", loose, recipe)[1]
    assert "policy.rounding" in out
    assert "Scores do not compare" in out


def test_compare_with_a_published_score_is_in_rerun_errors(evaluator: Run, problems: Path) -> None:
    good = _score(evaluator, problems, GOOD, "good")
    metrics = json.loads(good.read_text())
    output = problems.parent / "z.json"
    assert evaluator("compare", good, "--published", "0.5", "--output", output)[0] == 0
    error = metrics["pass@1"]["se_rerun"]
    assert json.loads(output.read_text())["z"] == pytest.approx((5 / 6 - 0.5) / (2**0.5 * error))


def test_diff_protocol_names_the_fields_of_presets(evaluator: Run) -> None:
    code, out, _ = evaluator("diff-protocol", "r1", "greedy")
    assert code == 0
    for field in ("sampling.temperature", "sampling.top_p", "samples"):
        assert field in out
    assert "policy" not in out
    assert "no field differs." in evaluator("diff-protocol", "r1", "r1")[1]
    out = evaluator("diff-protocol", "r1", "r1-cons64", "--benchmark", "math_500")[1]
    assert "samples" in out
    assert "Scores do not compare" not in out
    assert (
        "no field differs."
        in evaluator("diff-protocol", "r1", "r1-cons64", "--benchmark", "aime_2024")[1]
    )


def test_rescore_writes_new_verdicts_beside_the_old_ones(evaluator: Run, problems: Path) -> None:
    folder = problems.parent / "run"
    rows = _rows(GOOD)
    rows.append({"problem_id": "a", "sample": 2, "completion": "The final answer is 1/2."})
    rows.append({"problem_id": "b", "sample": 2, "completion": "\\boxed{2}"})
    rows.append({"problem_id": "c", "sample": 2, "completion": "\\boxed{1.732}"})
    code, _, err = evaluator(
        "run", "--benchmark", "custom", "--problems", problems, "--engine", "replay",
        "--model", _write(problems.parent / "c.jsonl", rows), "--samples", 3, "--jobs", 1,
        "--out", folder,
    )  # fmt: skip
    assert code == 0, err
    before = {name: (folder / name).read_bytes() for name in ("metrics.json", "grades.jsonl")}
    code, out, err = evaluator(
        "rescore", folder, "--policy", "boxed_only=true", "--policy", "rounding=true", "--jobs", 1
    )
    assert code == 0, err
    assert {name: (folder / name).read_bytes() for name in before} == before
    (made,) = (folder / "rescores").iterdir()
    listed = [json.loads(line) for line in (made / "differences.jsonl").read_text().splitlines()]
    moved = {
        (row["problem_id"], row["sample"]): (row["before"]["outcome"], row["after"]["outcome"])
        for row in listed
    }
    assert moved == {("a", 2): ("correct", "no_answer"), ("c", 2): ("wrong", "correct")}
    assert "correct → no_answer\t1" in out
    assert "changed: policy.boxed_only: False → True" in out
    old, new = (json.loads((place / "metrics.json").read_text()) for place in (folder, made))
    assert new["measurement_hash"] != old["measurement_hash"]
    assert new["run_fingerprint"] == old["run_fingerprint"]
    code, out, _ = evaluator("rescore", folder, "--jobs", 1)
    assert code == 0
    assert "0 verdicts differ" in out
    assert len(list((folder / "rescores").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["compare", "M", "MISSING"], "cannot be read"),
        (["compare", "M", "P"], "P: not JSON"),
        (["compare", "M"], "give a second metrics.json or --published, one of them."),
        (["compare", "M", "M", "--published", "0.5"], "one of them"),
        (["compare", "M", "INCOMPLETE"], "its score is incomplete"),
        (["compare", "M", "OTHER"], "its problems are not those of"),
        (["diff-protocol", "r1", "MISSING"], "no preset is called"),
        (["diff-protocol", "r1", "FOLDER"], "no graded run is in it"),
        (["diff-protocol", "r1", "quick", "--benchmark", "x"], "benchmark: none is called 'x'"),
        (["rescore", "FOLDER"], "no run is in it"),
        (["score", "--completions", "C", "--output", "OUT"], "custom has no download"),
        (["score", "--benchmark", "x", "--problems", "P", "--completions", "C", "--output", "OUT"],
         "benchmark: none is called 'x'"),
        (["score", "--problems", "P", "--completions", "TWICE", "--output", "OUT"],
         "line 2: sample 0 of problem 'a' occurs a second time"),
        (["score", "--problems", "P", "--completions", "TORN", "--output", "OUT"],
         "line 3: not a JSON value"),
        (["score", "--problems", "P", "--completions", "STRANGER", "--output", "OUT"],
         "stranger.jsonl, line 1: problem 'z' is not in this benchmark"),
        (["score", "--problems", "P", "--completions", "OPTIONS", "--output", "OUT"],
         "carry options, which benchmark custom has not"),
        (["score", "--problems", "DOUBLE", "--completions", "C", "--output", "OUT"],
         "line 4: id 'a' stands on line 1 too"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_exit_code_2(
    evaluator: Run, problems: Path, arguments: list[str], complaint: str
) -> None:
    folder = problems.parent
    rows = _rows(GOOD)
    (folder / "torn.jsonl").write_text(
        json.dumps(rows[0]) + "\n" + json.dumps(rows[1]) + '\n{"problem_id": "a", "samp'
    )
    others = [{**row, "id": row["id"] + "2", "problem": row["id"]} for row in PROBLEMS]
    names: dict[str, Callable[[], object]] = {
        "M": lambda: _score(evaluator, problems, GOOD, "m"),
        "INCOMPLETE": lambda: _score(evaluator, problems, GOOD, "incomplete", "--samples", 3),
        "OTHER": lambda: _score(
            evaluator, _write(folder / "others.jsonl", others),
            {f"{key}2": value for key, value in GOOD.items()}, "other",
        ),
        "P": lambda: problems, "C": lambda: _write(folder / "c.jsonl", rows),
        "TORN": lambda: folder / "torn.jsonl", "FOLDER": lambda: folder,
        "TWICE": lambda: _write(folder / "twice.jsonl", [rows[0], rows[0]]),
        "STRANGER": lambda: _write(folder / "stranger.jsonl", [{**rows[0], "problem_id": "z"}]),
        "OPTIONS": lambda: _write(folder / "options.jsonl", [{**rows[0], "options": [1, 0]}]),
        "DOUBLE": lambda: _write(folder / "double.jsonl", [*PROBLEMS, PROBLEMS[0]]),
        "MISSING": lambda: folder / "missing", "OUT": lambda: folder / "out.json",
    }  # fmt: skip
    given = [names[argument]() if argument in names else argument for argument in arguments]
    code, _, err = evaluator(*given)
    assert code == 2, err
    assert complaint.replace("P:", f"{problems}:") in err
    assert err.strip().count("\n") == 0
    assert not (folder / "out.json").exists()
