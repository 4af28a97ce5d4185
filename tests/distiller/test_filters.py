"""Every filter's rule, by property and by case."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distiller import filters, similarity
from distiller.errors import InputError
from distiller.filters import Context, Trace
from distiller.recipe import DEFAULT_FILTERS, FilterChoice
from evaluator.protocol import Thinking
from evaluator.records import Completion, FinishReason
from tests.distiller.samples import trace

CONTEXT = Context(thinking=Thinking(), jobs=1)
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def reason(name: str, text: str, *, finish: FinishReason = FinishReason.STOP, **parameters: Any):
    (rule,) = filters.create([FilterChoice(name=name, parameters=parameters)])
    return rule.reasons([trace(text, finish=finish)], CONTEXT)[0]


@given(st.lists(st.text(max_size=40), max_size=8))
def test_every_filter_answers_for_every_trace_in_order(texts: list[str]) -> None:
    traces = [trace(text, sample=index) for index, text in enumerate(texts)]
    for name in filters.names():
        if filters.get(name).scope != "trace" or name == "answer":
            continue
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
        ("<think>a\\boxed{2}", "not_closed"),
        ("a</think>\\boxed{2}", "not_opened"),
        ("\\boxed{2}", "not_opened"),
        ("so <think>a</think>\\boxed{2}", "text_before_thoughts"),
        ("<think>a<think>b</think>\\boxed{2}", "opened_twice"),
        ("<think>a</think>b</think>\\boxed{2}", "closed_twice"),
        ("<think>\n\n</think>\\boxed{2}", "empty_thoughts"),
        ("<think>a</think>\n", "no_answer_part"),
        ("<think>\\boxed{2}</think>two", "no_final_answer"),
        ("<think>a</think>\\boxed{2", "no_final_answer"),
    ],
)
def test_format(text: str, expected: str | None) -> None:
    assert reason("format", text) == expected


def test_format_switches() -> None:
    worded = "<think>a</think>the answer is 2"
    assert reason("format", worded) is None
    assert reason("format", worded, require_box=True) == "no_box"
    assert reason("format", "<think>a</think>two") == "no_final_answer"
    assert reason("format", "<think>a</think>two", require_answer=False) is None
    twice = "<think>a</think>\\boxed{2}. No: \\boxed{3}"
    assert reason("format", twice) == "several_answers"
    assert reason("format", twice, one_answer=False) is None


@given(st.integers(1, 60), st.integers(1, 60))
def test_the_longest_paragraph_counts(first: int, second: int) -> None:
    text = f"<think>{'a' * first}\n \n{'b' * second}</think>{'c' * 99}"
    longest = max(first, second)
    assert reason("paragraphs", text, max_characters=longest) is None
    if longest > 1:
        assert reason("paragraphs", text, max_characters=longest - 1) == "long_paragraph"


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_length_bounds_include_their_ends(length: int, low: int, more: int) -> None:
    bounds = {"min": low, "max": low + more, "unit": "words"}
    expected = "too_short" if length < low else "too_long" if length > low + more else None
    assert reason("length_bounds", "word " * length, **bounds) == expected


@pytest.mark.shared_data
def test_format_agrees_with_published_cases() -> None:
    rows = (SHARED / "grading" / "trace_format_cases.jsonl").read_text().splitlines()
    cases = [row for row in map(json.loads, rows) if row["check"] == "think_format"]
    assert len(cases) > 10
    for case in cases:
        kept = (
            reason(
                "format",
                case["text"],
                require_answer=False,
                one_answer=False,
                min_thought_characters=0,
            )
            is None
        )
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
        ("Так мы we add one and two.", True),
        ("Так we add one and two.", False),
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
    assert reason("mixed_language", chinese, language="CJK") is None
    assert reason("mixed_language", chinese, language="zh") is None
    assert reason("mixed_language", chinese, language="ja") is None
    assert reason("mixed_language", chinese, language="ru") == "mixed_language"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_that_are_characters_of_their_own_change_no_language(form: Any) -> None:
    text = "Chúng ta cần tìm số đó. Trước hết ta cộng hai vế và sau đó ta có kết quả là bốn. " * 3
    thoughts = f"<think>{unicodedata.normalize(form, text)}</think>\\boxed{{2}}"
    assert reason("mixed_language", thoughts, language="en") == "mixed_language"
    assert reason("mixed_language", thoughts, language="vi") is None


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
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    text = " ".join(
        f"{sentence} Step {n} is fine, as its {n} terms are all larger than zero." for n in numbers
    )
    assert reason("loops", text) is None
    assert reason("loops", text, max_repeats=7) == "repeated"
    assert reason("loops", text, max_repeated_share=0.3) == "repeated"


@given(st.lists(st.sampled_from(["a", "b", "a ", "c"]), max_size=12))
def test_duplicates_keep_the_first_of_each(texts: list[str]) -> None:
    traces = [trace(text, sample=index) for index, text in enumerate(texts)]
    (rule,) = filters.create([FilterChoice(name="duplicates")])
    kept = [
        t.text.strip() for t, r in zip(traces, rule.reasons(traces, CONTEXT), strict=True) if not r
    ]
    assert kept == list(dict.fromkeys(text.strip() for text in texts))


def test_same_response_to_another_question_stays() -> None:
    (rule,) = filters.create([FilterChoice(name="duplicates")])
    assert rule.reasons([trace("x"), trace("x", problem="2+0")], CONTEXT) == [None, None]


def test_defaults_exist_and_mistakes_are_named() -> None:
    assert [rule.name for rule in filters.create(DEFAULT_FILTERS)] == [
        c.name for c in DEFAULT_FILTERS
    ]
    with pytest.raises(InputError, match="loops is switched on twice"):
        filters.create([FilterChoice(name="loops")] * 2)
    questions_last = filters.create([FilterChoice(name="select"), FilterChoice(name="loops")])
    assert [rule.name for rule in questions_last] == ["loops", "select"]
    with pytest.raises(InputError, match="none is called 'spelling'; known: loops, truncated"):
        filters.create([FilterChoice(name="spelling")])
    with pytest.raises(InputError, match=r"loops: max_repeats: .*its parameters"):
        filters.create([FilterChoice(name="loops", parameters={"max_repeats": 0})])
    with pytest.raises(InputError, match="truncated: limit"):
        filters.create([FilterChoice(name="truncated", parameters={"limit": 1})])


STORY = (
    "Anna walks to the market and buys {n} apples for her mother, who wants to bake a cake for the "
    "birthday of the youngest child; she then meets her uncle Paul on the long way back home, "
    "gives him three of them because he looks so hungry, and counts how many of all her apples are "
    "left when she finally arrives at the door. Since three were given away, {n} less three stay."
)


def near(texts: list[str], **parameters: Any) -> list[str | None]:
    (rule,) = filters.create([FilterChoice(name="duplicates", parameters=parameters)])
    return rule.reasons([trace(text, sample=i) for i, text in enumerate(texts)], CONTEXT)


def test_near_duplicates_of_a_response_are_dropped() -> None:
    text = STORY.format(n=9)
    changed = text.replace("long way", "short way")
    loud = text.upper().replace(" ", "  ")
    other = " ".join(reversed(text.split()))
    assert near([text, changed, loud, other]) == [None, "near_duplicate", "near_duplicate", None]
    assert near([text, changed, text], near=False) == [None, None, "duplicate"]
    assert near([text, STORY.format(n=12)]) == [None, None]  # other numbers say something else
    short = "We add the two numbers and find that they make five in all."
    assert near([short, short.replace("find", "see")]) == [None, "near_duplicate"]


def test_many_near_duplicates_are_found_by_min_hash_as_by_comparing_all() -> None:
    words = [f"w{n}" for n in range(3000)]
    random = Random(5)
    texts = [" ".join(random.choices(words, k=150)) for _ in range(60)]
    copies = []
    for text in texts:
        tokens = text.split()
        tokens[random.randrange(150)] = "changed"
        copies.append(" ".join(tokens))
    assert near(texts + copies) == [None] * 60 + ["near_duplicate"] * 60


@given(st.lists(st.integers(0, 4), min_size=2, max_size=90), st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_problems_of_the_same_numbers_are_compared_each_with_each(
    numbers: list[int], seed: int
) -> None:
    """Oracle: every pair is looked at; only those with the same numbers can be near."""
    random, words = Random(seed), [f"w{n}" for n in range(11)]
    texts = [
        " ".join([*random.sample(words, k=9), f"{number} of {number + 1}?"]) for number in numbers
    ]
    sketches = [similarity.sketch(text) for text in texts]
    wanted = [
        (earlier, later)
        for later in range(len(texts))
        for earlier in range(later)
        if numbers[earlier] == numbers[later]
        and similarity.is_near(sketches[earlier], sketches[later], 0.5)
    ]
    assert list(similarity.near_pairs(texts, 0.5, same_numbers=True)) == wanted


def group(**answers: list[str]) -> list[Trace]:
    return [
        trace(f"<think>a</think>\\boxed{{{answer}}}", problem=name, answer="1", sample=sample)
        for name, given in answers.items()
        for sample, answer in enumerate(given)
    ]


def test_pass_rate_counts_what_was_dropped_too() -> None:
    drawn = group(easy=["1"] * 4, hard=["0", "0", "0", "1"], middle=["1", "0", "1", "0"], one=["1"])
    right = [t for t in drawn if t.text.endswith("{1}")]
    rule = {"min_rate": 0.3, "max_rate": 0.9}
    (made,) = filters.create([FilterChoice(name="pass_rate", parameters=rule)])
    reasons = made.reasons(right, Context(thinking=Thinking(), drawn=drawn))
    by_problem = {t.problem.id: r for t, r in zip(right, reasons, strict=True)}
    assert by_problem == {"easy": "too_easy", "hard": "too_hard", "middle": None, "one": None}
    with pytest.raises(InputError, match="max_rate must not be smaller"):
        filters.create([FilterChoice(name="pass_rate", parameters={"min_rate": 1, "max_rate": 0})])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 4))
def test_select_keeps_the_shortest_of_each_prompt(lengths: list[int], most: int) -> None:
    traces = [trace("x" * length, sample=i) for i, length in enumerate(lengths)]
    traces += [trace("y", problem="2+2", sample=0)]
    for choose in ("shortest", "random", "first"):
        parameters = {"choose": choose, "per_prompt": most}
        (rule,) = filters.create([FilterChoice(name="select", parameters=parameters)])
        reasons = rule.reasons(traces, CONTEXT)
        kept = [len(t.text) for t, r in zip(traces[:-1], reasons, strict=False) if r is None]
        assert reasons[-1] is None
        assert len(kept) == min(most, len(lengths))
        if choose == "shortest":
            assert sorted(kept) == sorted(lengths)[:most]
        if choose == "random":  # depends on neither the order nor the company of other prompts
            backwards = rule.reasons(traces[::-1], CONTEXT)[::-1]
            assert backwards == reasons
    (rule,) = filters.create([FilterChoice(name="select", parameters={"per_prompt": None})])
    assert rule.reasons(traces, CONTEXT) == [None] * len(traces)


def test_guessable_counts_the_first_tries_alone() -> None:
    drawn = group(a=["1"], b=["1"], c=["1"])
    guesses = {
        "a": [Completion("a", n, "\\boxed{1}" if n == 7 else "\\boxed{0}") for n in range(9)],
        "b": [Completion("b", n, "\\boxed{1}" if n == 8 else "\\boxed{0}") for n in range(9)],
    }
    context = Context(thinking=Thinking(), guesses=guesses)
    (rule,) = filters.create([FilterChoice(name="guessable")])
    assert rule.reasons(drawn, context) == ["guessable", None, None]
    (rule,) = filters.create([FilterChoice(name="guessable", parameters={"min_right": 2})])
    assert rule.reasons(drawn, context) == [None, None, None]


def test_a_judge_decides_only_where_the_rule_cannot_check() -> None:
    prose = "Yes, since every vertex can be reached from the root of the tree."
    right, wrong = (
        trace("<think>a</think>\\boxed{2}"),
        trace("<think>a</think>\\boxed{3}", sample=1),
    )
    open_ended = [
        trace("<think>a</think>It is \\boxed{yes}", problem="q", answer=prose, sample=n)
        for n in range(4)
    ]
    traces = [right, wrong, *open_ended]
    judged = {
        right.completion.key: "wrong", wrong.completion.key: "correct",
        ("q", 0): "correct", ("q", 1): "wrong", ("q", 2): "unsure",
    }  # fmt: skip
    context = Context(thinking=Thinking(), judged=judged)
    expected = {
        "drop": [None, "wrong", *["cannot_check"] * 4],
        "keep": [None, "wrong", *[None] * 4],
        "judge": [None, "wrong", None, "judged_wrong", "judge_unsure", "not_judged"],
    }
    for unchecked, reasons in expected.items():
        parameters = {"unchecked": unchecked}
        (rule,) = filters.create([FilterChoice(name="answer", parameters=parameters)])
        assert rule.reasons(traces, context) == reasons
