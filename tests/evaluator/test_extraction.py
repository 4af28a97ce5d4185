"""Where the thoughts end, where the answer stands, what a loop is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.graders.extraction import (
    answer_part,
    boxes,
    detect_thinking,
    extract_answer,
    is_looped,
    opened_by_server,
)
from evaluator.protocol import GradingPolicy, Thinking
from evaluator.records import Completion, FinishReason

TAGS = Thinking()
FORCED = Thinking(forced=True)
FIELD = Thinking(kind="field")
NONE = Thinking(kind="none")


@pytest.mark.parametrize(
    ("text", "thinking", "reasoning", "part"),
    [
        ("<think>a</think>b", TAGS, None, "b"),
        ("<think>a</think>b</think>c", TAGS, None, "c"),  # the last closing tag counts
        ("a</think>b", FORCED, None, "b"),
        ("<think>a", TAGS, None, None),
        ("<think>a</think>b<think>c", TAGS, None, None),
        ("\\boxed{1}", TAGS, None, "\\boxed{1}"),  # no tag at all
        ("\\boxed{1}", FORCED, None, None),
        ("\\boxed{1}", FORCED, "thoughts", "\\boxed{1}"),
        ("b", FIELD, "a", "b"),
        ("", FIELD, "a", None),
        ("<think>a", NONE, None, "<think>a"),
    ],
)
def test_answer_part(
    text: str, thinking: Thinking, reasoning: str | None, part: str | None
) -> None:
    assert answer_part(text, thinking, reasoning) == part


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"first \boxed{1}, then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{3}}", r"\boxed{3}"),
        (r"\fbox{7}", "7"),
        (r"\boxed {\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{5} and put it in \boxed{}", "5"),
        (r"\boxed{4} but \boxed{5", "4"),
        (r"a \} stray } brace \boxed{6}", "6"),
        ("The final answer is 42.", "42"),
        ("The answer is: **17**", "17"),
        ("Final answer: $x^2$. I hope it is correct.", "x^2"),
        ("Final Answer: The largest $n$ is 34.", "34"),
        ("So the answer is $3$ cm", "3"),
        ("We get $1$.\nHence $x=2$ and $y=3$.", "y=3"),
        (r"Hence \(x=4\)", "x=4"),
        ("  35 ", "35"),
        ("It has 7 nickels.", None),
        ("", None),
    ],
)
def test_extract_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text, GradingPolicy()) == answer


def test_policies_of_extraction() -> None:
    strict = GradingPolicy(boxed_only=True)
    assert extract_answer("The answer is 42.", strict) is None
    several = GradingPolicy(several_boxes="all")
    assert extract_answer(r"\boxed{1} or \boxed{2} or \boxed{1}", several) == "1, 2"


balanced = st.recursive(
    st.text(alphabet="ab1+ ", max_size=5),
    lambda inner: st.builds(lambda a, b, c: f"{a}{{{b}}}{c}", inner, inner, inner),
    max_leaves=8,
)


@given(st.text(alphabet="ab{}\\ 1", max_size=30).filter(lambda t: not t.endswith("\\")), balanced)
def test_the_last_balanced_box_is_found_whatever_stands_before_it(before: str, inside: str) -> None:
    inside = f"x{inside}x"
    assert extract_answer(f"{before}\n\\boxed{{{inside}}} done", GradingPolicy()) == inside.strip()


def test_unclosed_boxes_take_linear_time() -> None:
    assert boxes(r"\boxed{" * 200_000) == []


@given(st.text(alphabet="abc ", min_size=1, max_size=200))
def test_a_repeated_unit_is_a_loop(unit: str) -> None:
    assert is_looped("start of it " + unit * (1000 // len(unit) + 1))


@given(st.text(alphabet="ab", min_size=1, max_size=12), st.integers(1, 1000), st.booleans())
def test_a_loop_is_a_tail_that_equals_itself_moved_by_a_unit(
    unit: str, at: int, changed: bool
) -> None:
    """Oracle: every length of a unit is tried."""
    tail = (unit * 1000)[:1000]
    if changed:
        tail = f"{tail[: at - 1]}c{tail[at:]}"
    assert is_looped(tail) == any(tail[p:] == tail[:-p] for p in range(1, 201))


def test_what_is_no_loop() -> None:
    assert not is_looped("short " * 10)
    assert not is_looped("".join(f"step {i}, " for i in range(1000)))
    unit = "".join(chr(200 + i) for i in range(201))
    assert not is_looped(unit * 20)  # the unit is too long


def wrote(*texts: str, reason: FinishReason = FinishReason.STOP) -> list[Completion]:
    return [Completion("p", sample, text, reason) for sample, text in enumerate(texts)]


def test_thinking_is_told_from_the_responses() -> None:
    def told(*texts: str) -> Thinking:
        return detect_thinking(wrote(*texts))

    assert told().kind == "none"
    assert told(*["plain"] * 20, "<think> was mentioned").kind == "none"
    assert told(*["<think>a</think>b"] * 3) == Thinking(forced=False)
    assert told("a</think>b", "cut off") == Thinking(forced=True)
    sky = told("<|begin_of_thought|>a", "<|begin_of_thought|>b<|end_of_thought|>c")
    assert (sky.open, sky.close) == ("<|begin_of_thought|>", "<|end_of_thought|>")


def test_few_that_end_tell_of_many_that_were_cut_off() -> None:
    """A limit that nearly every response meets while thinking hides the tags, not the thoughts."""
    cut = wrote(*[r"perhaps \boxed{1}"] * 40, reason=FinishReason.LENGTH)
    assert detect_thinking(cut + wrote("a</think>b")) == Thinking(forced=True)
    assert detect_thinking(cut + wrote("a", "b")).kind == "none"
    assert detect_thinking(cut).kind == "none"


def test_an_endpoint_that_opens_the_thoughts_is_told_by_those_that_end() -> None:
    cut = wrote(*["still thinking"] * 9, reason=FinishReason.LENGTH)
    assert opened_by_server(cut + wrote("a</think>b"), TAGS)
    assert opened_by_server(wrote("a</think>b", "c</think>d", "e"), TAGS)
    for others in ([], ["a"], ["<think>a</think>b"], ["a</think>b", "c"], ["a", "b", "c</think>d"]):
        assert not opened_by_server(cut + wrote(*others), TAGS)
    apart = [Completion("p", 0, "a</think>b", FinishReason.STOP, reasoning="thoughts")]
    assert not opened_by_server(apart, TAGS)
