"""The registry of graders: one file each and one line here. Light: evaluation is imported late."""

from __future__ import annotations

from evaluator.errors import InputError
from evaluator.graders.base import Grader
from evaluator.graders.choice import ChoiceGrader
from evaluator.graders.code import CodeGrader
from evaluator.graders.countdown import CountdownGrader
from evaluator.graders.integer import IntegerGrader
from evaluator.graders.mathematics import MathGrader

__all__ = ["Grader", "get", "names"]

_REGISTRY: dict[str, Grader] = {
    grader.name: grader
    for grader in (IntegerGrader(), MathGrader(), ChoiceGrader(), CountdownGrader(), CodeGrader())
}


def names() -> list[str]:
    """Names of all known graders."""
    return list(_REGISTRY)


def get(kind: str) -> Grader:
    """Return the grader called ``kind``; raises InputError naming the known ones."""
    try:
        return _REGISTRY[kind]
    except KeyError:
        known = ", ".join(_REGISTRY)
        raise InputError(f"grader: none is called {kind!r}; known: {known}.") from None
