"""What a benchmark is, apart from its problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evaluator.records import Problem

# Filled in by replacing "{problem}", never by str.format: the text itself holds braces.
BOXED_PROMPT = (
    "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
)


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file of a data set on the Hugging Face hub, and what it must contain.

    ``answers_hash`` pins the content: SHA-256 over the sorted reference answers (``hub.py``), so
    that a changed set is refused at any ``revision``. ``revision`` is a commit hash where one is
    known.
    """

    repo: str
    filename: str
    answers_hash: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class Archive:
    """An encrypted zip that a benchmark is published as: the table in it, and who knows the key.

    ``password_variable`` names the environment variable that holds the password.
    """

    member: str
    password_variable: str


@dataclass(frozen=True, slots=True)
class BenchmarkSpec:
    """A named benchmark: how its problems are read, asked and graded.

    ``prompt`` holds ``{problem}``. ``identify`` derives an id from a published row where the row's
    own is not the same in every form; ``answer`` turns a published answer into the reference
    answer; ``problem`` builds the whole problem of a row, or None where the row is not of the
    published form; ``left_out`` says why a row is no problem that can be measured on, and is None
    for the others. ``prompts_only`` marks a prompt set, which is never measured on; ``private``
    one whose texts leave in no report unless asked; ``repeats`` one that may hold a text twice,
    under two ids. ``answers_hash`` stands for the hub's where there is no hub.
    """

    name: str
    title: str
    grader: Literal["integer", "math", "choice", "countdown", "code"]
    prompt: str
    hub: HubSource | None
    problem_count: int | None
    identify: Callable[[Mapping[str, Any]], str | None] | None = None
    answer: Callable[[str], str] | None = None
    problem: Callable[[Mapping[str, Any]], Problem | None] | None = None
    left_out: Callable[[Mapping[str, Any]], str | None] | None = None
    archive: Archive | None = None
    answers_hash: str | None = None
    prompts_only: bool = False
    repeats: bool = False
    private: bool = False
