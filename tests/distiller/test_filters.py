"""Every filter's rule, by property and by case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distiller import filters
from distiller.errors import InputError
from distiller.filters import Context
from distiller.recipe import DEFAULT_FILTERS, FilterChoice
from evaluator.protocol import Thinking
from evaluator.records import FinishReason
from tests.distiller.samples import trace

CONTEXT = Context(thinking=Thinking(), jobs=1)
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def reason(name: str, text: str, *, finish: FinishReason = FinishReason.STOP, **parameters: Any):
    (rule,) = filters.create([FilterChoice(name=name, parameters=parameters)])
    return rule.reasons([trace(text, finish=finish)], CONTEXT)[0]


@given(st.lists(st.text(max_size=40), max_size=8))
def test_every_filter_answers_for_every_trace_in_order(texts: list[str]) -> None:
    traces = [trace(text, sample=index) for index, text in enumerate(texts)]
    for name in set(filters.names()) - {"answer", "duplicates"}:
        (rule,) = filters.create([FilterChoice(name=name)])
        together = rule.reasons(traces, CONTEXT)
        assert together == [rule.reasons([one], CONTEXT)[0] for one in traces]


def test_truncated() -> None:
    assert reason("truncated", "…", finish=FinishReason.LENGTH) == "truncated"
    assert reason("truncated", "…", finish=FinishReason.STOP) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think>\\boxed{2}", None),
        ("<think>\na\n</think>\n\nSo \\boxed{\\frac{1}{2}}.", None),
        ("<think>a\\boxed{2}", "tags"),
        ("a</think>\\boxed{2}", "tags"),
        ("\\boxed{2}", "tags"),
        ("so <think>a</think>\\boxed{2}", "tags"),
        ("<think>a<think>b</think>\\boxed{2}", "tags"),
        ("<think>a</think>b</think>\\boxed{2}", "tags"),
        ("<think>\n\n</think>\\boxed{2}", "empty_thoughts"),
        ("<think>a</think>\n", "no_answer_part"),
        ("<think>\\boxed{2}</think>two", "no_box"),
        ("<think>a</think>\\boxed{2", "no_box"),
    ],
)
def test_format(text: str, expected: str | None) -> None:
    assert reason("format", text) == expected


def test_format_switches() -> None:
    long = "<think>" + "word " * 50 + "\n\nshort</think>\\boxed{2}"
    assert reason("format", long) is None
    assert reason("format", long, max_paragraph_characters=249) == "long_paragraph"
    assert reason("format", long, max_paragraph_characters=250) is None
    code = "<think>```x```</think>\\boxed{2}"
    assert reason("format", code) is None
    assert reason("format", code, allow_code_blocks=False) == "code_block"
    assert reason("format", "<think>a</think>two", require_box=False) is None


@pytest.mark.shared_data
def test_format_agrees_with_published_cases() -> None:
    rows = (SHARED / "grading" / "trace_format_cases.jsonl").read_text().splitlines()
    cases = [row for row in map(json.loads, rows) if row["check"] == "think_format"]
    assert len(cases) > 10
    for case in cases:
        kept = reason("format", case["text"], require_box=False, min_thought_characters=0) is None
        assert kept == (case["expected"] == 1.0), case["id"]


def test_answer_grades_many_at_once() -> None:
    texts = ["<think>a</think>\\boxed{2}", "<think>a</think>\\boxed{3}", "<think>a</think>none",
             "<think>\\boxed{2}", "<think>a</think>\\boxed{02}"]  # fmt: skip
    (rule,) = filters.create([FilterChoice(name="answer", parameters={"grader": "integer"})])
    reasons = rule.reasons([trace(text, sample=i) for i, text in enumerate(texts)], CONTEXT)
    assert reasons == [None, "wrong", "no_answer", "no_answer", None]
    assert rule.reasons([], CONTEXT) == []


def test_mathematical_answers_are_equal_in_value() -> None:
    (rule,) = filters.create([FilterChoice(name="answer")])
    half = trace("<think>a</think>\\boxed{0.5}", answer="\\frac{1}{2}")
    assert rule.reasons([half], CONTEXT) == [None]


@pytest.mark.parametrize(
    ("thoughts", "mixed"),
    [
        ("We add one and two, and get three.", False),
        ("1+2=3", False),
        ("We add one and two. 我们得到三。", True),
        ("Так we add one and two.", True),
        ("Let θ be an angle, α another; say $\\text{角}$ and `变量 = 1`.", False),
        ("Façade, naïve, Ångström", False),
        ("", False),
    ],
)
def test_mixed_language(thoughts: str, mixed: bool) -> None:
    found = reason("mixed_language", f"<think>{thoughts}</think>答案 \\boxed{{2}}")
    assert found == ("mixed_language" if mixed else None)


def test_target_script_is_a_parameter() -> None:
    chinese = "<think>我们得到三</think>\\boxed{3}"
    assert reason("mixed_language", chinese) == "mixed_language"
    assert reason("mixed_language", chinese, script="CJK") is None


@given(st.text("abc .\n", min_size=1, max_size=100))
def test_loops_catch_any_repeated_unit(unit: str) -> None:
    looped = unit * (1000 // len(unit) + 5)
    assert reason("loops", f"<think>{looped}") == "looped"
    assert reason("loops", f"<think>{looped}</think>but then \\boxed{{2}}") in (
        "looped",
        "repeated",
    )


def test_repeated_sentences() -> None:
    sentence = "Wait, let me check this once more."
    text = " ".join(f"{sentence} Step {n} is fine." for n in range(8))
    assert reason("loops", text) is None
    assert reason("loops", text, max_repeats=7) == "repeated"


@given(st.lists(st.sampled_from(["a", "b", "a ", "c"]), max_size=12), st.integers(1, 3))
def test_duplicates_keep_the_first_of_each(texts: list[str], most: int) -> None:
    traces = [trace(text, sample=index) for index, text in enumerate(texts)]
    (rule,) = filters.create(
        [FilterChoice(name="duplicates", parameters={"max_per_problem": most})]
    )
    kept = [
        t.text.strip() for t, r in zip(traces, rule.reasons(traces, CONTEXT), strict=True) if not r
    ]
    first_seen = list(dict.fromkeys(text.strip() for text in texts))
    assert kept == first_seen[:most]


def test_same_response_to_another_question_stays() -> None:
    (rule,) = filters.create([FilterChoice(name="duplicates")])
    assert rule.reasons([trace("x"), trace("x", problem="2+0")], CONTEXT) == [None, None]


def test_defaults_exist_and_mistakes_are_named() -> None:
    assert [rule.name for rule in filters.create(DEFAULT_FILTERS)] == [
        c.name for c in DEFAULT_FILTERS
    ]
    assert set(filters.names()) == {choice.name for choice in DEFAULT_FILTERS}
    with pytest.raises(InputError, match="none is called 'spelling'; known: truncated"):
        filters.create([FilterChoice(name="spelling")])
    with pytest.raises(InputError, match=r"loops: max_repeats: .*its parameters"):
        filters.create([FilterChoice(name="loops", parameters={"max_repeats": 0})])
    with pytest.raises(InputError, match="truncated: limit"):
        filters.create([FilterChoice(name="truncated", parameters={"limit": 1})])
