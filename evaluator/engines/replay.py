"""Engine ``replay``: completions made elsewhere, read from a file. Torch-free."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeGuard

from evaluator.benchmarks.choice_order import places
from evaluator.engines.base import Request
from evaluator.errors import InputError
from evaluator.protocol import Protocol, Sampling
from evaluator.records import Completion, FinishReason, Problem

# Of the text, unpacked. A completion of 32k tokens has some 130 KB.
MOST_BYTES = 2 << 30
MOST_LINE_BYTES = 16 << 20
MOST_LINES = 2_000_000
# What the columns of a completion's row hold.
_LARGEST = dict.fromkeys(("sample", "prompt_tokens", "completion_tokens"), 2**31 - 1) | {
    "seed": 2**63 - 1
}


def read_completions(
    path: Path, *, model: str | None = None, problems: Mapping[str, Problem] | None = None
) -> list[Completion]:
    """All of :func:`each_completion`."""
    return list(each_completion(path, model=model, problems=problems))


def each_completion(
    path: Path, *, model: str | None = None, problems: Mapping[str, Problem] | None = None
) -> Iterator[Completion]:
    """Read a file of completions: JSON lines, gzipped where the name ends in ``.gz``.

    One text is in memory at a time.

    A row is ``{problem_id, sample, completion, finish_reason?, prompt_tokens?, completion_tokens?,
    seed?, reasoning?, options?}``; ``text`` is another name of ``completion``, ``options`` the
    order in which a choice's options were shown. A row without ``sample`` is the next sample of its
    problem. Rows may name their ``model``: then only those of ``model`` are read. With ``problems``
    (by id) rows answer these alone, and ``options`` may be the options' texts as they were shown.
    Raises InputError naming line and field for anything else, for rows of several models where none
    is asked for, for a key that occurs twice, for a file without rows and for one beyond
    ``MOST_BYTES``, ``MOST_LINES`` or ``MOST_LINE_BYTES``.
    """
    seen: set[tuple[str, int]] = set()
    following: dict[str, int] = {}
    first: object = None
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        row = _row(line, where)
        wrote = row.get("model")
        if model is not None and wrote != model:
            continue
        if not seen:
            first = wrote
        elif wrote != first:
            raise InputError(
                f"{where}: model {str(wrote)[:99]!r} after rows of {str(first)[:99]!r}; say whose "
                "completions to take (--model NAME, or --every-model)."
            )
        problem = None if problems is None else _known(row, where, problems)
        completion = read_completion(row, where, following, problem)
        if completion.key in seen:
            raise InputError(
                f"{where}: sample {completion.sample} of problem {completion.problem_id!r} "
                "occurs a second time; remove one."
            )
        seen.add(completion.key)
        following[completion.problem_id] = completion.sample + 1
        yield completion
    if not seen:
        of = "" if model is None else f" of model {model!r}"
        raise InputError(f"{path.name}: there is no completion{of} in it.")


def models_of(path: Path) -> list[str]:
    """The models that a file's rows name, in order of appearance. Raises InputError."""
    models: dict[str, None] = {}
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            name = _row(line, f"{path.name}, line {number}").get("model")
            if isinstance(name, str) and name:
                models[name] = None
    return list(models)


def _lines(path: Path) -> Iterator[str]:
    """The file's lines, one at a time: a packed bomb ends at the limits."""
    opener: Any = gzip.open if path.name.endswith(".gz") else open
    size = 0
    try:
        with opener(path, "rb") as file:
            for count in itertools.count(1):
                line: bytes = file.readline(MOST_LINE_BYTES + 1)
                if not line:
                    return
                size += len(line)
                if len(line) > MOST_LINE_BYTES or size > MOST_BYTES or count > MOST_LINES:
                    raise InputError(
                        f"completions: {path} has more than {MOST_BYTES >> 30} GiB of text or "
                        f"{MOST_LINES:,} lines, or a line above {MOST_LINE_BYTES >> 20} MiB; "
                        "split it into several files, or shorten that line."
                    )
                yield line.decode("utf-8-sig" if count == 1 else "utf-8")
    except OSError as error:
        raise InputError(
            f"completions: {path} cannot be read ({error.strerror or error})."
        ) from error
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"completions: {path} is damaged or is not UTF-8 ({error}).") from error


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a JSON value ({error}).") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: not a JSON object.")
    return row


def shown_texts(path: Path) -> dict[str, list[tuple[str, ...]]]:
    """The orders in which each problem's options were shown, where rows give them as texts.

    Each order once. Problems whose rows give places or letters, or nothing, are left out.
    """
    shown: dict[str, dict[tuple[str, ...], None]] = {}
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            row = _row(line, f"{path.name}, line {number}")
            given = row.get("options")
            if _are_texts(given) and places(given) is None:
                order = tuple(each.strip() for each in given)
                shown.setdefault(str(row.get("problem_id")), {})[order] = None
    return {problem: list(orders) for problem, orders in shown.items()}


def _are_texts(given: object) -> TypeGuard[list[str]]:
    return isinstance(given, list) and all(isinstance(each, str) for each in given)


def _known(row: Mapping[str, Any], where: str, problems: Mapping[str, Problem]) -> Problem | None:
    """The problem that a row answers; None where it names none (which is told elsewhere)."""
    problem_id = row.get("problem_id")
    if isinstance(problem_id, bool) or not isinstance(problem_id, str | int) or problem_id == "":
        return None
    if str(problem_id) not in problems:
        raise InputError(
            f"{where}: problem {str(problem_id)[:99]!r} is not in this benchmark; give the "
            "problems that the completions were drawn for."
        )
    return problems[str(problem_id)]


def read_completion(
    row: Mapping[str, Any],
    where: str,
    following: Mapping[str, int],
    problem: Problem | None = None,
) -> Completion:
    """The completion in a row of :func:`read_completions`' form.

    ``where`` begins the message of the InputError for a field that cannot be used; ``following`` is
    the sample that a row without one is, by problem.
    """
    problem_id = row.get("problem_id")
    if isinstance(problem_id, bool) or not isinstance(problem_id, str | int) or problem_id == "":
        raise InputError(f"{where}: problem_id must be a text or a whole number.")
    text = row.get("completion", row.get("text"))
    if not isinstance(text, str):
        raise InputError(f"{where}: completion must be a text.")
    reasoning = row.get("reasoning")
    if reasoning is not None and not isinstance(reasoning, str):
        raise InputError(f"{where}: reasoning must be a text.")
    reason = row.get("finish_reason") or "unknown"
    if not isinstance(reason, str) or reason not in set(FinishReason):
        raise InputError(
            f"{where}: finish_reason {reason!r} is not one of {', '.join(FinishReason)}."
        )
    sample = _count(row, "sample", where)
    return Completion(
        problem_id=str(problem_id),
        sample=following.get(str(problem_id), 0) if sample is None else sample,
        text=text,
        finish_reason=FinishReason(reason),
        prompt_tokens=_count(row, "prompt_tokens", where),
        completion_tokens=_count(row, "completion_tokens", where),
        seed=_count(row, "seed", where),
        reasoning=reasoning,
        options=_order(row, where, problem),
    )


def _order(row: Mapping[str, Any], where: str, problem: Problem | None) -> tuple[int, ...]:
    """The order in which options were shown: their places in the problem, letters or texts."""
    given = row.get("options") or []
    if problem is not None and problem.options and _are_texts(given):
        texts = [each.strip() for each in given]
        if sorted(texts) == sorted(problem.options):
            if len(set(texts)) < len(texts):
                raise InputError(
                    f"{where}: options: two have the same text; give the order, as [2, 0, 3, 1]."
                )
            return tuple(problem.options.index(text) for text in texts)
    order = places(given if isinstance(given, list) else [given])
    if order is None:
        raise InputError(
            f"{where}: options must be the order shown, as [2, 0, 3, 1], or the problem's own "
            "options, each once."
        )
    return order


def _count(row: Mapping[str, Any], field: str, where: str) -> int | None:
    value = row.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST[field]:
        raise InputError(
            f"{where}: {field} must be a whole number, 0 or more and below 2**"
            f"{_LARGEST[field].bit_length()}."
        )
    return value


class ReplayEngine:
    """Hands out the completions of a file; a key that is not in it has no completion."""

    OPTIONS: ClassVar[tuple[str, ...]] = ("model", "context_tokens", "rope")

    def __init__(
        self, model: str | Path, *, context_tokens: int | None = None, rope: object = None
    ) -> None:
        path = Path(model)
        self._completions = {completion.key: completion for completion in read_completions(path)}
        self._sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """See :meth:`evaluator.engines.base.Engine.describe`."""
        return {"name": "replay", "completions": self._sha256}

    def render(self, problem: str, *, prompt: str, protocol: Protocol) -> str:
        """The prompt without a chat template: what the model saw elsewhere is not known."""
        return prompt.replace("{problem}", problem)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """See :meth:`evaluator.engines.base.Engine.generate`; missing keys are left out."""
        for request in requests:
            if (completion := self._completions.get(request.key)) is not None:
                if request.options and not completion.options:
                    raise InputError(
                        f"completions: sample {completion.sample} of problem "
                        f"{completion.problem_id!r} lacks options, the order in which they were "
                        "shown; add it."
                    )
                yield completion

    def close(self) -> None:
        """See :meth:`evaluator.engines.base.Engine.close`."""
        self._completions = {}
