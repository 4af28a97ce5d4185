"""Grade a run's completions anew: other policies or a newer grader, nothing generated."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evaluator import passport, runner
from evaluator.errors import InputError
from evaluator.graders.pool import GraderPool
from evaluator.local import LocalRun, write_json, write_json_lines
from evaluator.protocol import GradingPolicy, Protocol, first_mistake
from evaluator.store import Row

Transition = tuple[str, str]  # (outcome before, outcome now)


@dataclass(frozen=True, slots=True)
class Rescore:
    """New verdicts in ``folder``; ``differences`` are ``{problem_id, sample, before, after}``."""

    folder: Path
    metrics: dict[str, Any]
    differences: list[Row]
    transitions: Counter[Transition]
    changed_fields: list[passport.Difference]


def graded_run(folder: Path) -> LocalRun:
    """The run in ``folder``; raises InputError where there is none or it is not graded yet."""
    run = LocalRun.open(folder)
    if not (folder / "metrics.json").is_file() or not (folder / "grades.jsonl").is_file():
        raise InputError(f"{folder}: the run is not graded yet; finish it with `run`.")
    return run


def rescore(
    run: LocalRun, protocol: Protocol, *, jobs: int, on_progress: runner.Progress
) -> Rescore:
    """Grade :func:`graded_run`'s ``run`` by the rules of ``protocol``, beside its old verdicts.

    Written when all is graded: ``rescores/<hash>/`` in the run's folder, with grades.jsonl,
    metrics.json, protocol.json and differences.jsonl. The same rules write the same folder again.
    """
    folder, changed = run.folder, protocol
    before = _grades(folder)
    whole = passport.make(
        changed,
        benchmark=run.benchmark.name,
        problems_hash=run.config["problems_hash"],
        samples=run.samples,
        engine=run.config["engine"],
    )
    after: list[Row] = []

    def keep(row: Row) -> None:
        after.append(row)
        on_progress(len(after), len(before), 0)

    with GraderPool(jobs) as pool:
        metrics = runner.grade(
            run.problems,
            run.store.rows(),
            benchmark=run.benchmark,
            protocol=run.as_served(changed),
            samples=run.samples,
            pool=pool,
            passport=whole,
            on_row=keep,
        )
    metrics |= run.rating(after)
    differing = _differences(before, after)
    target = folder / "rescores" / metrics["measurement_hash"][:12]
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / "protocol.json", changed.model_dump(mode="json"))
    write_json_lines(target / "grades.jsonl", after)
    write_json_lines(target / "differences.jsonl", differing)
    write_json(target / "metrics.json", metrics)  # last: with it the folder is whole
    old = passport.of_metrics(json.loads((folder / "metrics.json").read_bytes()), str(folder))
    return Rescore(
        folder=target,
        metrics=metrics,
        differences=differing,
        transitions=Counter(
            (row["before"]["outcome"], row["after"]["outcome"]) for row in differing
        ),
        changed_fields=passport.differences(old.measurement, whole.measurement),
    )


def changed_rules(
    protocol: Protocol, settings: Sequence[str], rules: Protocol | None = None
) -> Protocol:
    """``protocol`` with other rules of thinking and grading; what is drawn stays its own.

    ``rules`` gives its thinking and policy; ``settings`` are ``FIELD=VALUE`` of the policy. Raises
    InputError for a policy that does not exist.
    """
    if rules is not None:
        protocol = protocol.model_copy(update={"thinking": rules.thinking, "policy": rules.policy})
    fields = protocol.policy.model_dump()
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or name not in GradingPolicy.model_fields:
            known = ", ".join(GradingPolicy.model_fields)
            raise InputError(f"policy: {setting!r} is not FIELD=VALUE with a field of {known}.")
        fields[name] = value
    try:
        return protocol.model_copy(update={"policy": GradingPolicy.model_validate(fields)})
    except ValidationError as error:
        raise InputError(f"policy: {first_mistake(error)}") from error


def _grades(folder: Path) -> dict[tuple[str, int], Row]:
    """The run's verdicts by key."""
    lines = (folder / "grades.jsonl").read_text("utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    return {(row["problem_id"], row["sample"]): row for row in rows}


def _differences(before: dict[tuple[str, int], Row], after: Sequence[Row]) -> list[Row]:
    """Rows whose outcome or answer is another than before, in order of problem and sample."""
    found = []
    for row in sorted(after, key=lambda row: (row["problem_id"], row["sample"])):
        old = before.get((row["problem_id"], row["sample"]), {})
        was, now = ({k: r.get(k) for k in ("outcome", "answer", "reason")} for r in (old, row))
        if (was["outcome"], was["answer"]) != (now["outcome"], now["answer"]):
            found.append(
                {
                    "problem_id": row["problem_id"],
                    "sample": row["sample"],
                    "before": was,
                    "after": now,
                }
            )
    return found
