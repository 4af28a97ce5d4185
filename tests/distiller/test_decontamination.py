"""Planted copies are found, different problems and boilerplate are not."""

from __future__ import annotations

import gzip
import json
import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distiller.decontamination import find, normalise, words
from evaluator.records import Problem

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
TRAIN = (
    "A train leaves Lyon at noon and travels north at sixty kilometres per hour; another leaves "
    "Paris one hour later. At what distance from Lyon do the two trains meet if Paris is 460 away?"
)


def problems(*texts: str) -> list[Problem]:
    return [Problem(f"p{index}", text, "0") for index, text in enumerate(texts)]


def rule(prompt: str, *benchmark: str) -> str | None:
    found = find(problems(prompt), {"bench@1": problems(*benchmark)})
    return found[0].rule if found else None


def test_planted_copies_are_found() -> None:
    assert rule(TRAIN, TRAIN) == "equal"
    assert rule(TRAIN.upper().replace(" ", "  "), TRAIN) == "equal"
    assert rule(TRAIN.replace("noon", "midnight"), TRAIN) == "near"
    quoted = "Consider this. " + " ".join(TRAIN.split()[:9]) + " slowly until it stops for good."
    assert rule(quoted, TRAIN) == "8-gram"
    assert rule("How many trains leave Lyon on a given day of the year 1990?", TRAIN) is None


def test_operators_count() -> None:
    assert normalise("1+2-3") != normalise("1-2+3")
    assert rule("1-2+3", "1+2-3") is None
    assert rule(" 1 + 2 − 3 ", "1+2-3") == "equal"
    assert rule("(1+2)*3", "1+2*3") is None
    assert rule("$2 \\times 3$", "2*3") == "equal"
    assert rule("3.5", "35") is None
    assert rule("5!", "5") is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"Compute $\frac{1}{2}+x^{6}\le\sqrt7$", r"Compute \(\dfrac12 + x^6 \leq \sqrt{7}\)"),
        (r"Find \[x^2\cdot\pi\]", "Find $$x²·π$$"),
        (r"Is $a\,\ge\,1{,}000^\circ$?", "Is a ≥ 1,000°?"),
        (r"Solve $\left(x\right)\neq~2$", "**Solve** $(x) ≠ 2$"),
        ("Which whole number is it?", "\ufeffWhich whole\u200b num\u00adber is it?"),
        ("Which $n<3$ are prime?", "Which $n&lt;3$ are prime?"),
    ],
)
def test_one_formula_in_two_writings_is_one_formula(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)
    assert words(one) == words(other)
    assert rule(other, one) == "equal"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"$\frac{1}{23}$", r"$\frac{12}{3}$"), ("$x^{23}$", "$x^23$"), ("2 ** 3", "2 3"),
        (r"$a\le 3$", r"$a\ge 3$"), ("$x_1$", "$x^1$"), (r"$\sqrt{12}$", r"$\sqrt{1}2$"),
    ],
)  # fmt: skip
def test_different_formulas_stay_different(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("+-*/")), min_size=1, max_size=3))
def test_short_formulas_match_themselves_alone(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{sign}" for number, sign in parts) + "7"
    others = {
        "".join(f"{n}{sign}" for (n, _), sign in zip(parts, signs, strict=True)) + "7"
        for signs in product("+-*/", repeat=len(parts))
    }
    spaced = " ".join(text)
    assert [other for other in sorted(others) if normalise(other) == normalise(spaced)] == [text]


def test_near_means_the_exact_jaccard_index_of_three_grams() -> None:
    tokens = words(TRAIN)
    for changed in range(0, len(tokens), 4):
        variant = list(tokens)
        variant[changed] = "zebra"
        grams = [{tuple(t[i : i + 3]) for i in range(len(t) - 2)} for t in (tokens, variant)]
        jaccard = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
        found = find(problems(" ".join(variant)), {"b": problems(TRAIN)})
        assert (found[0].rule == "near") == (jaccard >= 0.8)
        if jaccard >= 0.8:
            assert found[0].detail == f"{jaccard:.3f}"


def test_boilerplate_of_the_benchmark_is_kept() -> None:
    phrase = "where m and n are relatively prime positive integers find m+n"
    shared = [f"The chance of event number {n} is m over n {phrase}" for n in (1, 2)]
    prompt = f"Some quite different story ends in a fraction {phrase}"
    assert rule(prompt, *shared) is None
    assert rule(prompt, shared[0]) == "8-gram"


def test_boilerplate_of_the_prompts_is_kept() -> None:
    phrase = "please write your whole solution with every single step"
    bench = problems(f"Count the primes below forty and {phrase}")
    stories = ["apples", "bridges", "candles", "dragons", "engines"]
    many = problems(*(f"A tale about {word} of old: {phrase}" for word in stories))
    assert find(many, {"b": bench}) == []
    assert [hit.rule for hit in find(many[:2], {"b": bench})] == ["8-gram", "8-gram"]
    again = [Problem(f"q{n}", many[0].problem, "0") for n in range(9)]
    assert len(find(again, {"b": bench})) == 9  # one prompt, repeated, is no boilerplate


def test_hits_name_the_first_benchmark_and_problem() -> None:
    bench = {"a@1": problems("2+2"), "b@2": problems("9", "1+1")}
    (hit,) = find(problems("3+3", "1+1"), bench)
    assert (hit.problem_id, hit.benchmark, hit.benchmark_problem_id) == ("p1", "b@2", "p1")
    assert find(problems("1"), {}) == []


@pytest.mark.shared_data
def test_real_sets() -> None:
    def read(name: str) -> list[Problem]:
        data = (SHARED / "benchmarks" / name).read_bytes()
        text = gzip.decompress(data).decode() if name.endswith("gz") else data.decode()
        rows = [json.loads(line) for line in text.splitlines()]
        return [
            Problem(str(n), row.get("problem") or row["question"], str(row["answer"]))
            for n, row in enumerate(rows)
        ]

    math500, past, aime = (
        read("math500.jsonl"),
        read("aime1983_2023.jsonl.gz"),
        read("aime2024.jsonl"),
    )
    assert [hit.rule for hit in find(math500, {"m": math500})] == ["equal"] * 500
    for rewrite in (
        lambda text: text.replace("\\frac", "\\dfrac").replace("\\le ", "\\leq "),
        lambda text: re.sub(r"\$([^$]+)\$", r"\\(\1\\)", text),
        lambda text: re.sub(r"([=+])", r"\\,\1\\,", text),
        lambda text: re.sub(r"\^(\d)", r"^{\1}", text),
    ):
        rewritten = [Problem(each.id, rewrite(each.problem), "") for each in math500]
        assert len(find(rewritten, {"m": math500})) == 500
    share = len(find(past, {"aime_2024": aime})) / len(past)
    assert share < 0.05  # the plain 8-gram rule flags 32 %
