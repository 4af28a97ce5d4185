"""What a benchmark is, apart from its problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# Filled in by replacing "{problem}", never by str.format: the text itself holds braces.
BOXED_PROMPT = (
    "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
)


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file of a data set on the Hugging Face hub, pinned by what it must contain.

    ``content_hash`` is ``records.problems_hash`` of the problems read from the file; None where no
    copy has been read yet, in which case only the count is checked. ``revision`` is a commit hash
    where one is known.
    """

    repo: str
    filename: str
    revision: str = "main"
    content_hash: str | None = None


@dataclass(frozen=True, slots=True)
class BenchmarkSpec:
    """A named benchmark: how its problems are read, asked and graded.

    ``fields`` maps what a problem needs (``problem``, ``answer``, ``subject``, ``level``) to the
    column names that are known for it, first match wins. ``identify`` derives an id from a row
    where the published form has none worth keeping; ``answer`` turns a published answer into the
    reference answer.
    """

    name: str
    title: str
    grader: Literal["integer", "math"]
    prompt: str
    hub: HubSource | None
    problem_count: int | None
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    identify: Callable[[Mapping[str, Any]], str | None] | None = None
    answer: Callable[[str], str] | None = None
