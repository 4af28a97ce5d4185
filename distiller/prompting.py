"""What the teacher is asked, mode by mode: the only place where these texts stand.

``plain`` is the recipe's own prompt. The other two are the paper's ways to a cold start (arXiv
2501.12948 §2.3.1): few-shot prompting with a long chain of thought as an example, and asking
directly for a detailed answer with reflection and verification. The student is taught with the
recipe's own prompt, never with these.
"""

from __future__ import annotations

from distiller.recipe import Recipe, WorkedExample
from evaluator.protocol import Thinking

REFLECTION = """\
Answer the question below in detail.
First think, {shape_of_thoughts}: write down every step, reflect on each one, say so where you \
notice a mistake and go back, and verify the result in a second way before you settle on it.
Then answer: a short summary of the solution, with the final answer in \\boxed{{}}.

{question}"""

FEW_SHOT = """\
Answer the last question in the manner of the examples: long thoughts first, {shape_of_thoughts}, \
then a short solution with the final answer in \\boxed{{}}.

{examples}

Question: {question}"""

EXAMPLE = """\
Question: {problem}

Response:
{response}"""

WORKED_EXAMPLE = WorkedExample(
    problem="How many positive integers below 100 are divisible by 3 or by 5, but not by both?",
    thoughts="""\
I count the multiples of 3, those of 5, and take away what is counted in both.

Below 100 the multiples of 3 are 3, 6, …, 99, which is 99/3 = 33 numbers.
The multiples of 5 are 5, 10, …, 100. Wait, 100 is not below 100, so they end at 95: 19 numbers.
Divisible by both means divisible by 15: 15, 30, 45, 60, 75, 90, which is 6 numbers.

33 + 19 - 6 = 46 would be "3 or 5 or both". But the question says "not by both", so the 6 numbers \
have to go from both counts: (33 - 6) + (19 - 6) = 27 + 13 = 40.

Let me verify the rule on a smaller case, below 30: 9 multiples of 3, 5 of 5, and one of 15, so it \
gives 8 + 4 = 12. Listing them: 3, 5, 6, 9, 10, 12, 18, 20, 21, 24, 25, 27. That is 12, and 15 is \
rightly missing. The rule holds, so the answer is 40.""",
    answer="""\
Below 100 there are 33 multiples of 3 and 19 multiples of 5; 6 numbers are multiples of both. \
Exactly one of the two divides (33 - 6) + (19 - 6) = 40 numbers.

\\boxed{40}""",
)


def teacher_prompt(recipe: Recipe) -> str:
    """The text around a problem that the teacher is given; holds ``{problem}`` once or more."""
    mode = recipe.generation.mode
    if mode == "plain":
        return recipe.prompt
    shape = _shape(recipe.thinking)
    if mode == "reflection":
        return REFLECTION.format(shape_of_thoughts=shape, question=recipe.prompt)
    shown = recipe.generation.examples or (WORKED_EXAMPLE,)
    return FEW_SHOT.format(
        shape_of_thoughts=shape,
        examples="\n\n".join(_example(each, recipe.thinking) for each in shown),
        question=recipe.prompt,
    )


def _shape(thinking: Thinking) -> str:
    if thinking.kind == "tags":
        return f"between {thinking.open} and {thinking.close}"
    return "in plain words"


def _example(example: WorkedExample, thinking: Thinking) -> str:
    thoughts = example.thoughts.strip()
    if thinking.kind == "tags":
        thoughts = f"{thinking.open}\n{thoughts}\n{thinking.close}"
    response = f"{thoughts}\n\n{example.answer.strip()}"
    # An example's own braces are text: only the recipe's prompt has a place for the problem.
    return EXAMPLE.format(problem=example.problem, response=response).replace(
        "{problem}", "{ problem }"
    )
