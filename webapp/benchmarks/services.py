"""Installing benchmarks and prompt sets."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from django.db import transaction

from evaluator import benchmarks, graders
from evaluator.errors import InputError
from evaluator.records import Problem as ProblemRecord
from evaluator.records import problems_hash
from evaluator.store import write_durably
from webapp.benchmarks.models import Benchmark, Problem, PromptSet
from webapp.core import store
from webapp.core.errors import UserError
from webapp.core.locks import lock_store
from webapp.core.text import storable

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")


def install_benchmark(name: str, problems: Sequence[ProblemRecord], source: str) -> Benchmark:
    """Install one version of a benchmark; the same problems give the version that is there.

    ``source`` says where the problems come from. Raises UserError for an unknown benchmark, no
    problems, an id that comes twice, or text that no database can keep.
    """
    try:
        spec = benchmarks.get(name)
    except InputError as error:
        raise UserError(str(error), "benchmark") from None
    if spec.prompts_only:
        raise UserError(
            f"benchmark: {name} is a prompt set; run: import_prompts NAME FILE --like {name}",
            "benchmark",
        )
    _check(problems, "benchmark")
    digest = problems_hash(list(problems))
    with transaction.atomic():
        benchmark, created = Benchmark.objects.get_or_create(
            name=name,
            content_hash=digest,
            defaults={
                "title": spec.title,
                "grader": spec.grader,
                "problem_count": len(problems),
                "source": source[:300],
            },
        )
        if created or not _benchmark_path(benchmark).exists():
            lock_store()  # no sweep of an earlier file of the same contents before the row is seen
            _write_problems(_benchmark_path(benchmark), problems)
        if created:
            Problem.objects.bulk_create(
                [_row(benchmark, position, each) for position, each in enumerate(problems)],
                batch_size=1000,
            )
    return benchmark


def install_prompt_set(name: str, problems: Sequence[ProblemRecord]) -> PromptSet:
    """Install one version of a prompt set; the same problems give the version that is there."""
    if not _SLUG.fullmatch(name):
        raise UserError(
            f"name: {name!r} will not do; use up to 60 letters, digits, hyphens, underscores.",
            "name",
        )
    _check(problems, "prompts")
    digest = problems_hash(list(problems))
    relative = f"prompts/{digest}.jsonl"
    with transaction.atomic():
        prompt_set, created = PromptSet.objects.get_or_create(
            name=name,
            content_hash=digest,
            defaults={"path": relative, "prompt_count": len(problems)},
        )
        if created:
            lock_store()
            _write_problems(Path(settings.MEDIA_ROOT) / relative, problems)
    return prompt_set


def problems_file(benchmark: Benchmark) -> Path:
    """The benchmark's problems as a JSONL file in the store; written anew where it is missing.

    Raises UserError where the missing file held tests, which stand nowhere else.
    """
    path = store.fetch(store.relative_of(_benchmark_path(benchmark)))
    if not path.exists():
        if graders.get(benchmark.grader).untrusted:
            raise UserError(
                f"benchmark: the tests of {benchmark.title} are gone from the store; import it "
                "again from its file.",
                "benchmark",
            )
        _write_problems(path, [_record(row) for row in benchmark.problems.order_by("position")])
    return path


def read_prompts(prompt_set: PromptSet) -> list[ProblemRecord]:
    """The prompt set's problems, in order."""
    with store.fetch(prompt_set.path).open(encoding="utf-8") as file:
        return [ProblemRecord.from_json(json.loads(line)) for line in file]


def _benchmark_path(benchmark: Benchmark) -> Path:
    return Path(settings.MEDIA_ROOT) / "benchmarks" / f"{benchmark.content_hash}.jsonl"


def _check(problems: Sequence[ProblemRecord], field: str) -> None:
    if not problems:
        raise UserError(f"{field}: holds no problems; give a file with at least one.", field)
    seen: set[str] = set()
    for each in problems:
        if each.id in seen:
            raise UserError(f"{field}: the id {each.id!r} comes twice; make ids unique.", field)
        seen.add(each.id)
        if len(each.id) > 200:
            raise UserError(f"{field}: the id {each.id[:40]!r}… is longer than 200.", field)
        for text in (
            each.id, each.problem, each.answer, each.subject or "", each.level or "", *each.options
        ):  # fmt: skip
            if storable(text) != text:
                raise UserError(
                    f"{field}: problem {each.id!r} holds a NUL or half a character; remove it.",
                    field,
                )


def _write_problems(path: Path, problems: Sequence[ProblemRecord]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(each.to_json(), ensure_ascii=False) + "\n" for each in problems)
    part = path.with_name(f".{uuid.uuid4().hex}.jsonl")
    write_durably(part, "".join(lines).encode())
    part.replace(path)
    store.publish(store.relative_of(path))


def _row(benchmark: Benchmark, position: int, problem: ProblemRecord) -> Problem:
    return Problem(
        benchmark=benchmark,
        problem_id=problem.id,
        position=position,
        problem=problem.problem,
        answer=problem.answer,
        subject=(problem.subject or "")[:100],
        level=(problem.level or "")[:30],
        options=list(problem.options),
        content_hash=problem.content_hash,
    )


def _record(row: Problem) -> ProblemRecord:
    return ProblemRecord(
        id=row.problem_id,
        problem=row.problem,
        answer=row.answer,
        subject=row.subject or None,
        level=row.level or None,
        options=tuple(row.options),
    )
