"""Multiple choice from the published table to the score: orders, letters, what stays private."""

from __future__ import annotations

import csv
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator import benchmarks, report, runner
from evaluator.benchmarks import gpqa, hub
from evaluator.benchmarks.choice_order import LETTERS, letter_of, option_order, question
from evaluator.benchmarks.files import read_problems
from evaluator.cli import main
from evaluator.engines.base import Request
from evaluator.engines.replay import ReplayEngine, read_completions
from evaluator.errors import InputError
from evaluator.graders.pool import GraderPool
from evaluator.local import LocalRun
from evaluator.passport import Passport
from evaluator.protocol import PRESETS, Protocol, Sampling
from evaluator.records import Completion, Problem

ZIP = Path(__file__).parents[3] / "shared" / "data" / "gpqa" / "dataset.zip"
SAMPLES = 4


def _table(count: int = 12) -> list[dict[str, str]]:
    """Rows of the published form, with made-up content."""
    rng = random.Random(0)
    rows = []
    for number in range(count):
        words = [f"secret-{rng.random():.6f}-{number}-{kind}" for kind in ("right", "x", "y", "z")]
        rows.append(
            {"Record ID": f"rec{number}", "Question": f" What is hidden, {number}?\r\nThink. ",
             "Correct Answer": f"{words[0]}\n", "Incorrect Answer 1": words[1],
             "Incorrect Answer 2": words[2], "Incorrect Answer 3": words[3],
             "High-level domain": "Physics" if number % 2 else "Biology", "Explanation": "Because."}
        )  # fmt: skip
    return rows


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "gpqa_diamond.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(_table()[0]))
        writer.writeheader()
        writer.writerows(_table())
    return path


@given(st.integers(0, 99), st.text(max_size=5), st.integers(0, 99), st.integers(0, 8))
def test_an_order_is_a_permutation_that_depends_on_its_key_alone(
    seed: int, problem_id: str, sample: int, count: int
) -> None:
    order = option_order(seed, problem_id, sample, count)
    assert sorted(order) == list(range(count))
    assert order == option_order(seed, problem_id, sample, count)


def test_every_option_stands_in_every_place_equally_often() -> None:
    places = Counter(
        (place, index)
        for problem in range(1000)
        for sample in range(4)
        for place, index in enumerate(option_order(0, str(problem), sample, 4))
    )
    # 4,000 draws of chance 1/4: five standard deviations are 137.
    assert len(places) == 16
    assert all(abs(count - 1000) < 137 for count in places.values())
    assert option_order(0, "x", 0, 4) != option_order(1, "x", 0, 4)


def test_the_published_table_gives_problems_whose_order_says_nothing(table: Path) -> None:
    problems = read_problems(table, "gpqa_diamond")
    for problem, row in zip(problems, _table(), strict=True):
        assert problem.id == row["Record ID"]
        assert list(problem.options) == sorted(problem.options)
        right = problem.options[LETTERS.index(problem.answer)]
        assert right == row["Correct Answer"].strip()
        assert problem.problem == row["Question"].strip().replace("\r\n", "\n")
    ours = table.parent / "ours.jsonl"
    ours.write_text("".join(json.dumps(problem.to_json()) + "\n" for problem in problems))
    assert read_problems(ours, "gpqa_diamond") == problems
    other = [{**p.to_json(), "answer": p.options[0]} for p in problems]
    ours.write_text("".join(json.dumps(row) + "\n" for row in other))
    assert {p.answer for p in read_problems(ours, "gpqa_diamond")} == {"A"}
    assert hub.answers_hash(problems) != hub.answers_hash(read_problems(ours, "gpqa_diamond"))


class Oracle:
    """An engine that reads the prompt: it knows the right texts, or always says one letter."""

    def __init__(self, problems: Sequence[Problem], letter: str | None = None) -> None:
        self._right = {p.id: p.options[LETTERS.index(p.answer)] for p in problems}
        self._letter = letter
        self.prompts: dict[tuple[str, int], str] = {}

    def describe(self) -> dict[str, Any]:
        return {"name": "oracle"}

    def render(self, problem: str, *, prompt: str, protocol: Protocol) -> str:
        return prompt.replace("{problem}", problem)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        for request in reversed(requests):
            self.prompts[request.key] = request.prompt
            lines = [line for line in request.prompt.split("\n") if line[1:3] == ") "]
            known = next(line[0] for line in lines if line[3:] == self._right[request.problem_id])
            text = f"<think>\nIt says so.\n</think>\nAnswer: {self._letter or known}"
            yield Completion(request.problem_id, request.sample, text)

    def close(self) -> None:
        """Nothing to free."""


def _run(folder: Path, problems: list[Problem], letter: str | None) -> LocalRun:
    engine = Oracle(problems, letter)
    run = LocalRun.begin(
        folder, benchmark="gpqa_diamond", problems=problems, protocol=PRESETS["r1"],
        samples=SAMPLES, engine=engine.describe(), checkpoint="oracle",
    )  # fmt: skip
    run.draw(engine, lambda done, total, tokens: None)
    with GraderPool(1) as pool:
        run.grade(pool, on_row=lambda row: None)
    for row in run.store.rows():
        problem = next(p for p in problems if p.id == row["problem_id"])
        shown = question(problem, row["options"])
        assert shown in engine.prompts[row["problem_id"], row["sample"]]
    return run


def test_knowing_the_options_scores_all_and_a_letter_scores_a_quarter(
    table: Path, tmp_path: Path
) -> None:
    problems = read_problems(table, "gpqa_diamond")
    metrics = json.loads(
        (_run(tmp_path / "all", problems, None).folder / "metrics.json").read_text()
    )
    assert metrics["pass@1"]["value"] == 1.0
    assert metrics["cons@k"]["4"] == 1.0
    values = []
    for letter in "ABCD":
        run = _run(tmp_path / letter, problems, letter)
        metrics = json.loads((run.folder / "metrics.json").read_text())
        values.append(metrics["pass@1"]["value"])
        orders = {tuple(row["options"]) for row in run.store.rows()}
        assert len(orders) > SAMPLES
    assert sum(values) == pytest.approx(1.0), "each sample's right option has exactly one letter"
    assert max(values) < 0.5


def test_votes_are_for_options_and_not_for_letters(table: Path) -> None:
    """Two orders, the right option under two letters: one class of the vote, not two."""
    problem = read_problems(table, "gpqa_diamond")[0]
    right = LETTERS.index(problem.answer)
    rest = [index for index in range(4) if index != right]
    orders = [[right, *rest], [*rest, right], [rest[0], right, *rest[1:]]]
    rows = [
        Completion(problem.id, sample, f"Answer: {letter}", options=tuple(order)).to_json()
        for sample, (letter, order) in enumerate(zip("ADC", orders, strict=True))
    ]
    with GraderPool(1) as pool:
        metrics = runner.grade(
            [problem], rows, benchmark=gpqa.SPEC, protocol=PRESETS["r1"], samples=3, pool=pool,
            passport=Passport({}, {}), on_row=lambda row: None,
        )  # fmt: skip
    assert metrics["per_problem"][0]["correct"] == 2
    assert metrics["per_problem"][0]["majority"] == problem.answer
    assert metrics["cons@k_string"]["2"] == pytest.approx(metrics["cons@k"]["2"])


def test_completions_made_elsewhere_carry_their_order(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = read_problems(table, "gpqa_diamond")
    rows = []
    for number, problem in enumerate(problems):
        order = list(option_order(9, problem.id, 0, 4))
        letter = LETTERS[order.index(LETTERS.index(problem.answer))]
        given = order if number % 2 else [LETTERS[index] for index in order]
        rows.append(
            {"problem_id": problem.id, "sample": 0, "completion": f"Answer: {letter}",
             "options": given}
        )  # fmt: skip
    path, output = tmp_path / "c.jsonl", tmp_path / "m.json"

    def score(changed: list[dict[str, Any]]) -> int:
        path.write_text("".join(json.dumps(row) + "\n" for row in changed))
        monkeypatch.setattr(
            "sys.argv",
            ["evaluator", "score", "--benchmark", "gpqa_diamond", "--problems", str(table),
             "--completions", str(path), "--output", str(output), "--jobs", "1"],
        )  # fmt: skip
        return main()

    assert score(rows) == 0
    assert json.loads(output.read_text())["pass@1"]["value"] == 1.0
    output.unlink()
    capsys.readouterr()
    assert score([{**rows[0], "options": None}]) == 2
    assert "must carry options" in capsys.readouterr().err
    assert score([{**rows[0], "options": [0, 1, 1, 2]}]) == 2
    assert "line 1: options must be the order shown" in capsys.readouterr().err
    assert not output.exists()
    path.write_text(json.dumps(rows[0] | {"options": []}) + "\n")
    request = Request(problems[0].id, 0, "", 0, options=(0, 1, 2, 3))
    with pytest.raises(InputError, match="lacks options"):
        list(ReplayEngine(path).generate([request], Sampling()))
    assert read_completions(path)[0].options == ()


def test_a_private_benchmarks_texts_leave_only_when_asked(table: Path, tmp_path: Path) -> None:
    run = _run(tmp_path / "run", read_problems(table, "gpqa_diamond"), "B")
    made = run.report_data(generated_at="now")
    for page in (report.html(made), json.dumps(report.as_json(made))):
        assert "secret-" not in page
        assert "What is hidden" not in page
        assert "It says so" not in page
        assert "withheld" in page
    asked = report.html(run.report_data(generated_at="now", private_texts=True))
    assert "secret-" in asked
    assert "What is hidden" in asked


def test_complaints_do_not_quote_a_private_text(table: Path) -> None:
    with table.open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, list(_table()[0])).writerow(_table()[0] | {"Record ID": "again"})
    with pytest.raises(InputError, match="its text stands on line") as caught:
        read_problems(table, "gpqa_diamond")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("B", (), "B"), ("(b)", (), "B"), ("two", ("one", "two"), "B"), ("C", ("one", "two"), None),
        ("seven", ("one", "two"), None), ("", (), None), ("A", ("B", "A"), "B"),
    ],
)  # fmt: skip
def test_a_reference_is_a_letter_or_an_options_text(
    answer: str, options: tuple[str, ...], letter: str | None
) -> None:
    assert letter_of(answer, options) == letter


@pytest.mark.shared_data
def test_the_official_zip_is_the_known_set(monkeypatch: pytest.MonkeyPatch) -> None:
    # The authors publish it with the file, to keep crawlers out; it stays out of this tree.
    found = re.search(r"password stands .*?`([a-z-]+)`", (ZIP.parents[1] / "README.md").read_text())
    assert found is not None
    monkeypatch.setenv("GPQA_PASSWORD", found[1])
    problems = hub.checked("gpqa_diamond", read_problems(ZIP, "gpqa_diamond"))
    assert len(problems) == benchmarks.get("gpqa_diamond").problem_count == 198
    assert all(len(problem.options) == 4 for problem in problems)
    monkeypatch.setenv("GPQA_PASSWORD", found[1] + "x")
    with pytest.raises(InputError, match="the password in GPQA_PASSWORD is not its own"):
        read_problems(ZIP, "gpqa_diamond")
    monkeypatch.delenv("GPQA_PASSWORD")
    with pytest.raises(InputError, match="put its password into the environment variable"):
        read_problems(ZIP, "gpqa_diamond")
