"""The leaderboard's rows: measured here, and published elsewhere with their source."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from evaluator import benchmarks as registry
from evaluator import passport, programs_report
from evaluator.errors import InputError
from evaluator.programs_report import RatingRow
from evaluator.rating import Mode
from evaluator.statistics import compare_paired, holm
from webapp.benchmarks.models import Benchmark
from webapp.checkpoints.queries import undecontaminated
from webapp.runs.models import Evaluation

PUBLISHED_FILE = Path(__file__).resolve().parent / "published.json"
SIGNIFICANCE = 0.05
# Ranks compare every pair of rows. Beyond so many rows the pairs take longer than a page may.
RANKED_ROWS = 30
SORTS = ("score", "rating", "name", "newest")

# Benchmarks that only published rows have, as their papers write them.
TITLES = {
    "gpqa_diamond": "GPQA Diamond",
    "livecodebench": "LiveCodeBench",
    "codeforces": "Codeforces",
}

Counts = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Tab:
    """One benchmark that has scores."""

    name: str
    title: str
    evaluations: int


@dataclass(frozen=True, slots=True)
class Row:
    """One score: a checkpoint's newest under one measurement, or a published one.

    Shares are in [0, 1]; undefined is None.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    consensus: float | None = None
    consensus_k: int | None = None
    evaluation: Evaluation | None = None
    source: str = ""
    source_url: str = ""
    note: str = ""
    complete: bool = True
    comparable: bool = True
    differs: tuple[str, ...] = ()  # the measurement's fields in which most rows are different
    rank: int | None = None
    ratings: tuple[RatingRow, ...] = ()  # programs: measured here, rating@1 first
    rating: float | None = None  # Elo points: rating@1, or what was published
    rating_note: str = ""
    unrated: str = ""  # why programs that were measured here have no rating
    unsafe: bool = False  # the programs ran without isolation
    undecontaminated: bool = False  # it may have been taught the benchmark's own problems

    @property
    def is_published(self) -> bool:
        """Whether somebody else measured this."""
        return self.evaluation is None

    @property
    def served_as(self) -> str:
        """Model and address where an endpoint answered; empty for a checkpoint."""
        engine = {} if self.evaluation is None else self.evaluation.engine
        if engine.get("name") != "openai":
            return ""
        host = urlsplit(str(engine.get("base_url", ""))).netloc
        return f"{engine.get('model', '')} at {host}"


@lru_cache(maxsize=1)
def published() -> list[dict[str, Any]]:
    """The published reference rows; every one names its source."""
    rows: list[dict[str, Any]] = json.loads(PUBLISHED_FILE.read_text(encoding="utf-8"))
    return rows


def title_of(name: str) -> str:
    """A benchmark's title, from the registry where it has one."""
    try:
        return registry.get(name).title
    except InputError:
        return TITLES.get(name, name)


def _scored() -> Any:
    return Evaluation.objects.filter(metrics__isnull=False, checkpoint__isnull=False)


def tabs() -> list[Tab]:
    """Benchmarks with scores: those measured here first."""
    counts = Counter(_scored().order_by().values_list("benchmark__name", flat=True))
    titles = dict(Benchmark.objects.order_by("created_at").values_list("name", "title"))
    shown = (":pass@1", ":rating")
    keys = {key for row in published() for key in row["cells"] if key.endswith(shown)}
    elsewhere = {key.split(":")[0] for key in keys}
    names = sorted(counts) + sorted(elsewhere - set(counts))
    return [Tab(name, titles.get(name) or title_of(name), counts[name]) for name in names]


def rows(benchmark: str, sort: str = "score") -> list[Row]:
    """One row per checkpoint and measurement hash, the newest, and the published rows."""
    newest = (
        _scored()
        .filter(benchmark__name=benchmark)
        .order_by("checkpoint_id", "measurement_hash", "-created_at")
        .distinct("checkpoint_id", "measurement_hash")
        .select_related("checkpoint", "benchmark")
        .defer("rendered_prompt")
    )
    marked = undecontaminated()
    found = [
        replace(_measured(evaluation), undecontaminated=evaluation.checkpoint_id in marked)
        for evaluation in newest
    ]
    measured = _with_ranks(_mark_comparable(found))
    return _sorted(measured + _published_rows(benchmark), sort)


def _measured(evaluation: Evaluation) -> Row:
    metrics = evaluation.metrics or {}
    first = metrics.get("pass@1") or {}
    bounds = metrics.get("bounds") or {}
    defined = {int(k): v for k, v in (metrics.get("cons@k") or {}).items() if v is not None}
    k = max((k for k in defined if k > 1), default=None)
    ratings = tuple(row for row in programs_report.ratings(metrics) if row.mode == Mode.ELO)
    return Row(
        name=str(evaluation.checkpoint),
        value=first.get("value"),
        low=first.get("low", bounds.get("low")) if metrics.get("complete") else bounds.get("low"),
        high=first.get("high") if metrics.get("complete") else bounds.get("high"),
        consensus=None if k is None else defined[k],
        consensus_k=k,
        evaluation=evaluation,
        complete=bool(metrics.get("complete")),
        ratings=ratings,
        rating=ratings[0].value if ratings else None,
        unrated=(metrics.get("rating") or {}).get("missing") or "",
        unsafe=programs_report.unsafe(metrics),
    )


def _mark_comparable(measured: list[Row]) -> list[Row]:
    """Mark rows whose measurement hash is not the one that most rows have, and say in what."""
    hashes = Counter(r.evaluation.measurement_hash for r in measured if r.evaluation is not None)
    if len(hashes) < 2:
        return measured
    usual = hashes.most_common(1)[0][0]
    typical = next(
        row.evaluation for row in measured
        if row.evaluation is not None and row.evaluation.measurement_hash == usual
    )  # fmt: skip
    return [
        row
        if row.evaluation is None or row.evaluation.measurement_hash == usual
        else replace(row, comparable=False, differs=_differs(row.evaluation, typical))
        for row in measured
    ]


def _differs(evaluation: Evaluation, typical: Evaluation) -> tuple[str, ...]:
    found = passport.differences(_measurement(evaluation), _measurement(typical))
    return tuple(difference.field for difference in found)


def _measurement(evaluation: Evaluation) -> dict[str, Any]:
    """What the measurement hash was made of, as far as the evaluation's row knows it."""
    known = (evaluation.metrics or {}).get("measurement")
    if known:
        return dict(known)
    names = ("prompt", "system_prompt", "thinking", "policy", "sampling")
    held = {name: evaluation.protocol.get(name) for name in names}
    return {name: value for name, value in held.items() if value is not None} | {
        "problems": evaluation.benchmark.content_hash
    }


def _counts(row: Row) -> Counts:
    assert row.evaluation is not None
    per_problem = (row.evaluation.metrics or {}).get("per_problem") or []
    ordered = sorted(per_problem, key=lambda problem: str(problem["id"]))
    return tuple((problem["correct"], problem["n"]) for problem in ordered)


@lru_cache(maxsize=4096)
def _compare(first: Counts, second: Counts) -> tuple[float, float]:
    comparison = compare_paired(first, second)
    return comparison.difference, comparison.p


def sources(found: list[Row]) -> list[tuple[str, str]]:
    """(source, address) of the published rows, each once, in order of appearance."""
    return list(dict.fromkeys((row.source, row.source_url) for row in found if row.is_published))


def _with_ranks(measured: list[Row]) -> list[Row]:
    """Rank = 1 + the number of comparable checkpoints that are significantly better.

    Paired sign-flip tests on the same problems, with Holm's correction over the pairs shown
    (PROTOCOLS §2). Rows that are incomplete or measured otherwise have no rank.
    """
    ranked = [i for i, row in enumerate(measured) if row.complete and row.comparable]
    counts = {i: _counts(measured[i]) for i in ranked}
    ranked = [i for i in ranked if counts[i] and all(n for _, n in counts[i])]
    if not 2 <= len(ranked) <= RANKED_ROWS or len({len(counts[i]) for i in ranked}) != 1:
        return measured
    pairs = [(a, b) for place, a in enumerate(ranked) for b in ranked[place + 1 :]]
    compared = [_compare(counts[a], counts[b]) for a, b in pairs]
    better: Counter[int] = Counter()
    for (a, b), (difference, _), p in zip(
        pairs, compared, holm([p for _, p in compared]), strict=True
    ):
        if p < SIGNIFICANCE and difference:
            better[b if difference > 0 else a] += 1
    return [
        replace(row, rank=1 + better[i]) if i in ranked else row for i, row in enumerate(measured)
    ]


def _published_rows(benchmark: str) -> list[Row]:
    found = []
    for entry in published():
        cells = entry["cells"]
        single = cells.get(f"{benchmark}:pass@1") or {}
        rating = cells.get(f"{benchmark}:rating") or {}
        if not single and not rating:
            continue
        consensus = cells.get(f"{benchmark}:cons@64") or {}
        found.append(
            Row(
                name=entry["model"],
                value=single.get("value"),
                rating=rating.get("value"),
                rating_note=rating.get("note", ""),
                consensus=consensus.get("value"),
                consensus_k=64 if consensus else None,
                source=entry["source"],
                source_url=entry.get("source_url", ""),
                note=single.get("note", ""),
            )
        )
    return found


def _sorted(found: list[Row], sort: str) -> list[Row]:
    if sort == "name":
        return sorted(found, key=lambda row: row.name.lower())
    if sort == "newest":
        return sorted(
            found,
            key=lambda row: row.evaluation is not None and row.evaluation.created_at.timestamp(),
            reverse=True,
        )
    order = ("rating", "value") if sort == "rating" else ("value", "rating")

    def place(row: Row) -> tuple[Any, ...]:
        values = [getattr(row, name) for name in order]
        return (*((value is None, -(value or 0.0)) for value in values), row.name)

    return sorted(found, key=place)
