"""Every published form of a benchmark gives the same problems; what is not a problem is refused."""

from __future__ import annotations

import ast
import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator import benchmarks, graders
from evaluator.benchmarks.arithmetic import generate
from evaluator.benchmarks.files import read_problems, to_problem
from evaluator.benchmarks.hub import checked, fetch
from evaluator.errors import InputError
from evaluator.records import problems_hash

DATA = Path(__file__).parents[3] / "shared" / "data" / "benchmarks"
Rows = list[dict[str, Any]]

ROWS: Rows = [
    {"problem": 'What is $1+1$?\nSay "two", please.', "answer": "2", "unique_id": "t/1.json",
     "level": 1, "subject": "Algebra", "solution": "two"},
    {"problem": "Find $x$, if $x=\\frac12$. ", "answer": "\\frac12", "unique_id": "t/2.json",
     "level": 5, "subject": "Precalculus", "solution": None},
]  # fmt: skip


def _jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _gzip(path: Path, rows: Rows) -> None:
    path.write_bytes(gzip.compress("\n\n".join(json.dumps(row) for row in rows).encode()))


def _parquet(path: Path, rows: Rows) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def _csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


FORMS: dict[str, Callable[[Path, Rows], None]] = {
    "set.jsonl": _jsonl, "set.jsonl.gz": _gzip, "set.parquet": _parquet, "set.csv": _csv,
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_hash(tmp_path: Path, name: str) -> None:
    FORMS[name](tmp_path / name, ROWS)
    _jsonl(tmp_path / "reference.jsonl", ROWS)
    problems = read_problems(tmp_path / name, "math_500")
    reference = read_problems(tmp_path / "reference.jsonl", "math_500")
    assert problems == reference
    assert problems_hash(problems) == problems_hash(reference[::-1])
    assert [(p.id, p.level) for p in problems] == [("t/1.json", "1"), ("t/2.json", "5")]
    _jsonl(tmp_path / "ours.jsonl", [problem.to_json() for problem in problems])
    assert read_problems(tmp_path / "ours.jsonl", "math_500") == problems


def test_aime_ids_and_answers_do_not_depend_on_the_form(tmp_path: Path) -> None:
    url = "https://artofproblemsolving.com/wiki/index.php/2024_AIME_II_Problems/Problem_4"
    forms = [
        {"id": 63, "problem": "P", "answer": "025", "url": url, "year": "2024"},
        {"id": "aime2024-II-04", "problem": "P", "answer": 25, "url": None, "year": None},
    ]
    read = []
    for index, row in enumerate(forms):
        _jsonl(tmp_path / f"{index}.jsonl", [row])
        read += read_problems(tmp_path / f"{index}.jsonl", "aime_2024")
    assert read[0] == read[1]
    assert (read[0].id, read[0].answer) == ("aime2024-II-04", "25")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"problem": "p", "answer": "1"}', '{"problem": "", "answer": "1"}'], "line 2: problem:"),
        (['{"problem": "p"}'], "line 1: answer:"),
        (['{"problem": "p", "answer": "many"}'], "line 1: answer:"),
        (['{"problem": "p", "answer": {"x": 1}}'], "line 1: answer:"),
        (['{"problem": "p", "answer": true}'], "line 1: answer:"),
        (["", '{"problem": "p", "answer": "1"'], "line 2: it is not JSON"),
        (["[1]"], "line 1: list where an object"),
        (['{"problem": "p", "answer": NaN}'], "line 1: answer: missing"),
        (['{"problem": "p", "answer": Infinity}'], "line 1: answer: missing"),
        (['{"problem": "p", "answer": 1%s}' % ("0" * 5000)], "line 1: it is not JSON"),
        ([r'{"problem": "\ud800", "answer": 1}'], "line 1: problem: it holds half a character"),
        ([r'{"id": "a\ud800", "problem": "p", "answer": 1}'], "line 1: id: it holds half"),
        ([r'{"problem": "p", "answer": 1, "level": "\udfff"}'], "line 1: level: it holds half"),
        ([], "it holds no problems"),
        (['{"id": "a", "problem": "p", "answer": "1"}', '{"id": "a", "problem": "q", "answer": 1}'],
         "line 2: id 'a'"),
        (['{"id": "a", "problem": "p", "answer": "1"}', '{"id": "b", "problem": "p", "answer": 1}'],
         "line 2: text 'p'"),
    ],
)  # fmt: skip
def test_malformed_rows_are_named_by_line_and_field(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"set\.jsonl") as caught:
        read_problems(path, "aime_2024")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_persons_own_set_may_repeat_a_text_but_no_id(tmp_path: Path) -> None:
    rows = [{"id": name, "problem": "p", "answer": "1"} for name in "ab"]
    _jsonl(tmp_path / "set.jsonl", rows)
    assert len(read_problems(tmp_path / "set.jsonl", "custom")) == 2
    _jsonl(tmp_path / "set.jsonl", [*rows, rows[0]])
    with pytest.raises(InputError, match="line 3: id 'a' stands on line 1 too"):
        read_problems(tmp_path / "set.jsonl", "custom")


@given(st.integers(), st.integers(0, 4))
def test_an_integer_is_the_same_with_noughts_before_it(number: int, noughts: int) -> None:
    spec = benchmarks.get("aime_2024")
    sign = "-" if number < 0 else ""
    row = {"problem": "p", "answer": f"{sign}{'0' * noughts}{abs(number)}"}
    assert to_problem(row, spec).answer == str(number)


def test_an_answer_may_have_more_digits_than_python_turns_into_a_number() -> None:
    row = {"problem": "p", "answer": "7" * 5000}
    assert to_problem(row, benchmarks.get("aime_2024")).answer == row["answer"]


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.parquet", "x.csv", "x.jsonl", "x.txt"])
def test_files_that_are_something_else_are_refused_in_one_sentence(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b'\xff\xfe"\x00broken,\n"')
    with pytest.raises(InputError, match=name):
        read_problems(tmp_path / name, "aime_2024")
    with pytest.raises(InputError, match="absent"):
        read_problems(tmp_path / f"absent{name}", "aime_2024")


def test_unknown_benchmarks_are_refused_with_the_known_names() -> None:
    with pytest.raises(InputError, match="aime_2024, aime_2025, math_500"):
        benchmarks.get("aime")


def test_every_benchmark_has_a_grader_and_a_prompt() -> None:
    for name in benchmarks.names():
        spec = benchmarks.get(name)
        assert spec.name == name
        assert "{problem}" in spec.prompt
        assert graders.get(spec.grader).identity.startswith(f"{spec.grader}/")


def test_a_download_that_is_another_set_is_refused() -> None:
    with pytest.raises(InputError, match="2 problems where 30"):
        checked("aime_2024", generate(2, seed=0))
    with pytest.raises(InputError, match="reference answers"):
        checked("aime_2024", generate(30, seed=0))


def test_without_the_hub_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="import_benchmark math_500 FILE") as caught:
        fetch("math_500")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="give its problems as a file"):
        fetch("arithmetic")


def _evaluate(node: ast.expr) -> int:
    """Evaluate a sum of integers without eval."""
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, int)
        return node.value
    assert isinstance(node, ast.BinOp)
    left, right = _evaluate(node.left), _evaluate(node.right)
    return left + right if isinstance(node.op, ast.Add) else left - right


@pytest.mark.parametrize("terms", [2, 3])
def test_arithmetic_answers_texts_and_ids(terms: int) -> None:
    problems = generate(2000, seed=7, terms=terms)
    for problem in problems:
        assert problem.answer == str(_evaluate(ast.parse(problem.problem, mode="eval").body))
        assert len(problem.problem.replace("-", "+").split("+")) == terms
        assert problem.id.isalnum()
    assert len({p.problem for p in problems}) == len({p.id for p in problems}) == 2000
    assert generate(50, seed=7, terms=terms) == problems[:50]
    assert generate(50, seed=8, terms=terms) != problems[:50]


@pytest.mark.parametrize(
    ("count", "terms", "field"), [(0, 3, "count"), (10_001, 2, "count"), (5, 4, "terms")]
)
def test_arithmetic_refuses_what_it_cannot_make(count: int, terms: int, field: str) -> None:
    with pytest.raises(InputError, match=f"^{field}:"):
        generate(count, seed=0, terms=terms)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("aime2024.jsonl", "aime_2024"), ("aime2025.jsonl", "aime_2025"),
        ("math500.jsonl", "math_500"), ("gsm8k_test.jsonl.gz", "gsm8k"),
        ("amc23_40.jsonl", "amc_2023"), ("aime1983_2023.jsonl.gz", "aime_1983_2023"),
    ],
)  # fmt: skip
def test_published_files_are_the_known_sets(tmp_path: Path, file: str, name: str) -> None:
    problems = checked(name, read_problems(DATA / file, name))
    if name == "gsm8k":
        assert all(float(problem.answer) is not None for problem in problems)
    _parquet(
        tmp_path / "set.parquet", [problem.to_json() | {"extra": None} for problem in problems]
    )
    again = read_problems(tmp_path / "set.parquet", name)
    assert problems_hash(again) == problems_hash(problems)
