"""From traces to a corpus: decontaminate, filter, encode; count every trace exactly once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distiller import corpus, decontamination, filters
from distiller.corpus import Encoder
from distiller.errors import InputError
from distiller.filters.base import Context, Reason, Trace
from distiller.preflight import checks_of_corpus, require_passed
from distiller.recipe import Recipe
from evaluator.records import Problem

OnProgress = Callable[[int, int], None]


@dataclass(slots=True)
class Funnel:
    """What became of the traces, step by step.

    Each step's ``kept`` plus ``dropped`` is the step before's ``kept``, and ``dropped`` is the sum
    of its reasons.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)  # rows of dropped.jsonl

    def step(self, name: str, traces: Sequence[Trace], reasons: Sequence[Reason]) -> list[Trace]:
        """Count one step and return what it kept."""
        kept: list[Trace] = []
        counts: Counter[str] = Counter()
        for trace, reason in zip(traces, reasons, strict=True):
            if reason is None:
                kept.append(trace)
            else:
                counts[reason] += 1
                self.dropped.append({**trace.to_json(reason), "step": name})
        self.steps.append(
            {
                "step": name,
                "kept": len(kept),
                "dropped": counts.total(),
                "reasons": dict(sorted(counts.items())),
            }
        )
        return kept


def refine(
    traces: Sequence[Trace],
    *,
    prompts: Sequence[Problem],
    recipe: Recipe,
    benchmarks: Mapping[str, Sequence[Problem]],
    base_model: Path,
    out: Path,
    jobs: int,
    on_progress: OnProgress = lambda done, total: None,
) -> dict[str, Any]:
    """Write ``out``: kept.jsonl, dropped.jsonl, funnel.json, contaminated.json, the corpus.

    Returns ``{"corpus", "funnel", "manifest_hash"}``. Progress counts the filters' traces and then
    the encoded ones. Raises InputError for a wrong filter before anything is read, CorpusError
    where nothing is left; what was counted by then stays readable in ``out``.
    """
    chosen = filters.create(recipe.filters)
    encoder = Encoder(base_model, recipe)
    context = Context(thinking=recipe.thinking, jobs=jobs)
    out.mkdir(parents=True, exist_ok=True)
    funnel = Funnel()
    units, total = 0, len(traces) * (len(chosen) + 1)
    errors: list[Reason] = ["engine_error" if t.completion.error else None for t in traces]
    left = funnel.step("drawn", traces, errors)
    if recipe.decontaminate:
        found = decontamination.find(prompts, benchmarks)
        listed = {"prompts": len(prompts), "contaminated": [hit.to_json() for hit in found]}
        _write_json(out / "contaminated.json", listed)
        bad = {hit.problem_id for hit in found}
        reasons: list[Reason] = ["contaminated" if t.problem.id in bad else None for t in left]
        left = funnel.step("decontamination", left, reasons)
    for rule in chosen:
        left = funnel.step(rule.name, left, rule.reasons(left, context))
        units += len(traces)
        on_progress(units, total)
    try:
        reasons = corpus.build(
            left,
            encoder=encoder,
            recipe=recipe,
            out=out / "corpus",
            on_progress=lambda done, _: on_progress(min(units + done, total), total),
        )
        left = funnel.step("length", left, reasons)
    finally:
        _write_rows(out / "kept.jsonl", [trace.to_json() for trace in left])
        _write_rows(out / "dropped.jsonl", funnel.dropped)
        _write_json(out / "funnel.json", funnel.steps)
    on_progress(total, total)
    examples, manifest = corpus.read(out / "corpus")
    checks = checks_of_corpus(examples, encoder, recipe)
    _write_json(out / "preflight.json", [check.to_json() for check in checks])
    require_passed(checks)
    return {
        "corpus": str(out / "corpus"),
        "funnel": {"steps": funnel.steps},
        "manifest_hash": corpus.manifest_hash(manifest),
    }


def load_benchmarks(files: Mapping[str, str]) -> dict[str, list[Problem]]:
    """Read ``{"name@hash8": problems JSONL}``; raises InputError naming an unreadable file."""
    loaded: dict[str, list[Problem]] = {}
    for name, path in files.items():
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
            loaded[name] = [Problem.from_json(json.loads(line)) for line in lines if line.strip()]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"benchmark_files: {name}: cannot be read ({error!r}).") from error
    return loaded


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
