"""Trace generation: the teacher answers the prompts (PROTOCOLS §5). No torch by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from distiller.errors import InputError
from distiller.filters.base import Trace
from distiller.prompting import teacher_prompt
from distiller.recipe import Recipe
from evaluator.protocol import Protocol, Thinking
from evaluator.records import Completion, Problem
from evaluator.store import read_segment


def protocol(recipe: Recipe) -> Protocol:
    """The recipe's generation settings in the form in which engines take them."""
    generation = recipe.generation
    return Protocol(
        name="traces",
        samples=generation.samples,
        seed=generation.seed,
        sampling=generation.sampling,
        thinking=recipe.thinking,
        prompt=teacher_prompt(recipe),
    )


def tagged(completion: Completion, thinking: Thinking | None) -> Completion:
    """The completion with its thoughts in tags, as a student is to write them.

    Only a completion whose thoughts came in a field of their own becomes another one.
    """
    if thinking is None or thinking.kind != "tags" or not completion.reasoning:
        return completion
    thoughts = f"{thinking.open}\n{completion.reasoning.strip()}\n{thinking.close}\n\n"
    return replace(completion, text=thoughts + completion.text.lstrip(), reasoning=None)


def read(
    segments: Iterable[Path], problems: Iterable[Problem], thinking: Thinking | None = None
) -> Iterator[Trace]:
    """Traces of accepted segments with their problems, each (problem, sample) once.

    A completion counts before an error. With ``thinking``, thoughts that an endpoint returned apart
    are put where its tags say. Ordered by problem, as the problems come, then by sample: which
    worker drew what first changes nothing. Raises InputError for a completion of an unknown
    problem.
    """
    by_problem: dict[str, dict[int, Completion]] = {}
    known = {problem.id: problem for problem in problems}
    for path in segments:
        for _, row in read_segment(path):
            completion = Completion.from_json(row)
            if completion.problem_id not in known:
                raise InputError(
                    f"traces: {path.name} answers problem {completion.problem_id!r}, which is not "
                    "among the prompts; give the prompts that the traces were drawn for."
                )
            of_problem = by_problem.setdefault(completion.problem_id, {})
            there = of_problem.get(completion.sample)
            if there is None or (there.error is not None and completion.error is None):
                of_problem[completion.sample] = tagged(completion, thinking)
    for problem_id, problem in known.items():
        for _, completion in sorted(by_problem.get(problem_id, {}).items()):
            yield Trace(problem, completion)
