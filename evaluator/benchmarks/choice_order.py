"""In which order a multiple-choice problem's options are shown, and how the question then reads.

``Problem.options`` holds the options in the problem's own order and ``Problem.answer`` the letter
of the right one in it. ``Completion.options`` keeps the order shown: ``order[place]`` is the index,
in the problem, of the option shown in that place. The grader undoes it, so that answers and votes
are about options, never about letters.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from evaluator.records import Problem

LETTERS = "ABCDEFGHIJ"


def option_order(seed: int, problem_id: str, sample: int, count: int) -> tuple[int, ...]:
    """The order of ``count`` options, drawn from nothing but the run's seed and the key.

    Another stream than the completion's own seed, so that order and text are independent.
    """
    digest = hashlib.sha256(f"options\x1f{seed}\x1f{problem_id}\x1f{sample}".encode()).digest()
    order = list(range(count))
    random.Random(int.from_bytes(digest, "big")).shuffle(order)
    return tuple(order)


def question(problem: Problem, order: Sequence[int]) -> str:
    """The problem's text with its options, lettered as they are shown; without options the text."""
    if not order:
        return problem.problem
    shown = (f"{LETTERS[place]}) {problem.options[index]}" for place, index in enumerate(order))
    return f"{problem.problem}\n\n" + "\n".join(shown)


def places(options: Sequence[object]) -> tuple[int, ...] | None:
    """The order that ``options`` names by places or letters, as [2, 0, 3, 1] or C, A, D, B.

    None where it is no order of as many options.
    """
    order = [
        LETTERS.find(each.strip().upper()) if isinstance(each, str) and each.strip() else each
        for each in options
    ]
    if any(type(each) is not int for each in order) or len(order) > len(LETTERS):
        return None
    found = tuple(each for each in order if isinstance(each, int))
    return found if sorted(found) == list(range(len(found))) else None


def letter_of(answer: str, options: Sequence[str]) -> str | None:
    """The letter of a reference answer: a letter already, or the text of one of the options."""
    text = answer.strip()
    if text in options:
        return LETTERS[options.index(text)]
    known = LETTERS[: len(options)] if options else LETTERS
    letter = text.strip("().").upper()
    return letter if len(letter) == 1 and letter in known else None
