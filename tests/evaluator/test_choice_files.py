"""Options in files of completions: by place, letter or text, a choice gets the same score."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evaluator.benchmarks.choice_order import LETTERS
from evaluator.cli import app, main
from evaluator.graders.choice import ChoiceGrader

Row = dict[str, Any]


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def case(seed: int, problems: int = 8, samples: int = 4) -> tuple[list[Row], list[Row]]:
    """Problems with options, and answers right by lot; each row says the order as places."""
    rng = random.Random(seed)
    asked, rows = [], []
    for number in range(problems):
        # Some options are single digits and letters, which are texts all the same.
        options = rng.sample(["7", "x", "Paris", "a dog", "12 %", "$\\pi$", "none", "9"], 4)
        right = rng.randrange(4)
        asked.append(
            {"id": f"q{number}", "problem": f"Question {number}?", "options": options,
             "answer": LETTERS[right]}
        )  # fmt: skip
        for sample in range(samples):
            order = rng.sample(range(4), 4)
            said = order.index(right) if rng.random() < 0.6 else rng.randrange(4)
            rows.append(
                {"problem_id": f"q{number}", "sample": sample, "options": order,
                 "completion": f"Thus.\nAnswer: {LETTERS[said]}"}
            )  # fmt: skip
    return asked, rows


def as_texts(asked: list[Row], rows: list[Row]) -> list[Row]:
    options = {row["id"]: row["options"] for row in asked}
    return [
        {**row, "options": [options[row["problem_id"]][place] for place in row["options"]]}
        for row in rows
    ]


def score(folder: Path, asked: list[Row], rows: list[Row]) -> dict[str, Any]:
    out = folder / "metrics.json"
    arguments = [
        "score", "--benchmark", "gpqa_diamond", "--problems", write(folder / "p.jsonl", asked),
        "--completions", write(folder / "c.jsonl", rows), "--output", out, "--jobs", 1,
    ]  # fmt: skip
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == 0, (done.output, done.exception)
    found: dict[str, Any] = json.loads(out.read_text())
    return {name: found[name] for name in ("pass@1", "cons@k", "outcomes", "complete")}


@pytest.mark.parametrize("seed", range(3))
def test_places_letters_and_texts_are_one_score(tmp_path: Path, seed: int) -> None:
    asked, rows = case(seed)
    expected = score(tmp_path, asked, rows)
    assert 0 < expected["pass@1"]["value"] < 1
    letters = [{**row, "options": [LETTERS[i] for i in row["options"]]} for row in rows]
    assert score(tmp_path, asked, letters) == expected
    texts = as_texts(asked, rows)
    assert score(tmp_path, asked, texts) == expected
    # The problems' own options may be missing where the answer is a text and the rows tell them.
    bare = [
        {"id": row["id"], "problem": row["problem"],
         "answer": row["options"][LETTERS.index(row["answer"])]}
        for row in asked
    ]  # fmt: skip
    assert score(tmp_path, bare, texts) == expected


def test_a_letter_without_options_is_of_the_one_order_shown(tmp_path: Path) -> None:
    asked, _ = case(1, problems=3)
    bare = [{k: v for k, v in row.items() if k != "options"} for row in asked]
    rows = [
        {"problem_id": row["id"], "sample": 0, "options": row["options"],
         "completion": f"Answer: {row['answer']}"}
        for row in asked
    ]  # fmt: skip
    assert score(tmp_path, bare, rows)["pass@1"]["value"] == 1.0


def refused(folder: Path, asked: list[Row], rows: list[Row]) -> None:
    arguments = [
        "evaluator", "score", "--benchmark", "gpqa_diamond", "--problems",
        write(folder / "p.jsonl", asked), "--completions", write(folder / "c.jsonl", rows),
        "--output", folder / "metrics.json",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [*map(str, arguments)])
        assert main() == 2
    assert not (folder / "metrics.json").exists()


def test_options_that_do_not_fit_are_refused_with_line_and_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, rows = case(2, problems=2, samples=2)
    texts = as_texts(asked, rows)
    bare = [{k: v for k, v in row.items() if k != "options"} for row in asked]
    other = [texts[0], {**texts[1], "options": ["a", "b", "c", "etwas"]}]
    twins = [{**asked[0], "options": ["same", "same", "x1", "x2"], "answer": "A"}]
    for problems, completions, said in (
        (asked, other, "c.jsonl, line 2: options must be the order shown, as [2, 0, 3, 1], or"),
        (bare, texts, "p.jsonl, line 1: answer: the letter"),
        (twins, [{**texts[0], "options": ["x1", "same", "x2", "same"]}], "two have the same text"),
        (asked, [*rows, {**rows[0], "problem_id": "z"}], "c.jsonl, line 5: problem 'z' is not in"),
    ):
        refused(tmp_path, problems, completions)
        assert said in capsys.readouterr().err


def test_grade_takes_options_as_places_letters_and_texts(tmp_path: Path) -> None:
    texts = ["Rome", "Paris", "Bonn", "Bern"]
    common = {"kind": "choice", "completion": "Answer: B"}
    rows = [
        {**common, "id": 0, "gold": "Paris", "options": texts},
        {**common, "id": 1, "gold": "B", "options": texts},
        {**common, "id": 2, "gold": "Rome", "options": texts},
        {**common, "id": 3, "gold": "A", "options": [2, 0, 3, 1]},
        {**common, "id": 4, "gold": "A", "options": ["C", "A", "D", "B"]},
        {**common, "id": 5, "gold": "B", "options": ["C", "A", "D", "B"]},
        {**common, "id": 6, "gold": "5", "options": ["3", "5", "7", "9"]},
    ]  # fmt: skip
    output = tmp_path / "out.jsonl"
    arguments = ["grade", "--input", write(tmp_path / "in.jsonl", rows), "--output", output]
    done = CliRunner().invoke(app, [*map(str, arguments), "--jobs", "1"])
    assert done.exit_code == 0, (done.output, done.exception)
    found = [json.loads(line)["outcome"] for line in output.read_text().splitlines()]
    assert found == ["correct", "correct", "wrong", "correct", "correct", "wrong", "correct"]
    assert ChoiceGrader().unshuffled("B", (2, 0, 3, 1)) == "A"
