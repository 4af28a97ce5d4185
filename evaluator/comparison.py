"""Two measurements side by side: is the difference real, and were they measured alike?"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluator.errors import InputError
from evaluator.passport import Difference, differences
from evaluator.statistics import SIGNIFICANCE, Count, PairedComparison, compare_paired, holm

Counts = dict[str, Count]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two scores on the same problems, first minus second; ``names`` say where they come from."""

    names: tuple[str, str]
    benchmark: str
    values: tuple[float, float]
    paired: PairedComparison
    measurement_differs: bool
    measurement: list[Difference] | None  # None where a file carries no measurement fields
    run: list[Difference] | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; undefined is null."""
        paired = self.paired
        return {
            "schema": "retort/comparison/1",
            "first": self.names[0],
            "second": self.names[1],
            "benchmark": self.benchmark,
            "problems": paired.problems,
            "pass@1": list(self.values),
            "difference": paired.difference,
            "low": paired.low,
            "high": paired.high,
            "se_paired": paired.se,
            "p": paired.p,
            "resolvable": paired.resolvable,
            "measurement_differs": self.measurement_differs,
            "measurement_fields": _names(self.measurement),
            "run_fields": _names(self.run),
        }


def compare(first: Path, second: Path) -> Comparison:
    """Compare the metrics.json files (or the folders of graded runs) ``first`` and ``second``.

    Raises InputError where a file is no metrics.json, a score is incomplete, or the problems are
    not the same.
    """
    one, other = read_metrics(first), read_metrics(second)
    mine, yours = _counts(one, first), _counts(other, second)
    if mine.keys() != yours.keys():
        odd = sorted(mine.keys() ^ yours.keys())
        where = first if odd[0] in mine else second
        raise InputError(
            f"{second}: its problems are not those of {first} ({len(odd)} stand in one only, as "
            f"{odd[0]!r} in {where}); compare scores of the same problems."
        )
    ids = sorted(mine)
    return Comparison(
        names=(str(first), str(second)),
        benchmark=str(one["benchmark"]),
        values=(_mean(mine), _mean(yours)),
        paired=compare_paired([mine[i] for i in ids], [yours[i] for i in ids]),
        measurement_differs=one["measurement_hash"] != other["measurement_hash"],
        measurement=_fields(one, other, "measurement"),
        run=_fields(one, other, "run"),
    )


@dataclass(frozen=True, slots=True)
class Contrast:
    """One of several runs against their common baseline, on the problems that all share."""

    paired: PairedComparison  # the run minus the baseline
    p_holm: float  # after Holm's correction over the runs compared with this baseline
    compared: int  # how many runs that were
    wins: int  # problems with a larger share right than the baseline's
    losses: int

    @property
    def significant(self) -> bool:
        """Whether the difference is told apart from noise, at the 5 % level."""
        return self.p_holm < SIGNIFICANCE

    @property
    def verdict(self) -> str:
        """What the figures amount to, as a sentence for a person."""
        paired, problems = self.paired, _problems(self.paired.problems)
        if not self.wins and not self.losses:
            return f"These two do not differ on {problems}."
        if self.significant:
            word = "better" if paired.difference > 0 else "worse"
            doubt = ", but other problems than these may undo it" if paired.holds_zero else ""
            return (
                f"{100 * abs(paired.difference):.1f} points {word} than the baseline: more than "
                f"chance gives on {problems}{doubt}."
            )
        said = f"{problems} cannot separate these two{self._family}"
        if paired.p < SIGNIFICANCE or paired.resolvable is None:
            return f"{said}."
        alone = " if it were compared alone" if self.compared > 1 else ""
        return (
            f"{said}; a true difference of {100 * paired.resolvable:.1f} points would have been "
            f"found four times in five{alone}."
        )

    @property
    def _family(self) -> str:
        if self.paired.p >= SIGNIFICANCE:
            return f" (p = {self.paired.p:.2g})"
        return (
            f" once it is allowed for that {self.compared} are compared with the baseline "
            f"(p = {self.paired.p:.2g} alone, {self.p_holm:.2g} by Holm's rule)"
        )


def against(baseline: Sequence[Count], runs: Sequence[Sequence[Count]]) -> list[Contrast]:
    """Compare each of ``runs`` with ``baseline``: (correct, samples) of the same problems in order.

    Raises ValueError where a run has other problems than the baseline.
    """
    compared = [compare_paired(run, baseline) for run in runs]
    adjusted = holm([paired.p for paired in compared])
    return [
        Contrast(
            paired=paired,
            p_holm=p,
            compared=len(runs),
            wins=sum(c * m > d * n for (c, n), (d, m) in zip(run, baseline, strict=True)),
            losses=sum(c * m < d * n for (c, n), (d, m) in zip(run, baseline, strict=True)),
        )
        for run, paired, p in zip(runs, compared, adjusted, strict=True)
    ]


def _problems(count: int) -> str:
    return f"{count} problem" if count == 1 else f"{count} problems"


def read_metrics(path: Path) -> dict[str, Any]:
    """A metrics.json, given as such or as its run's folder; raises InputError for others."""
    file = path / "metrics.json" if path.is_dir() else path
    try:
        value = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); give a metrics.json.") from (
            error
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error}); give a metrics.json.") from error
    needed = ("benchmark", "complete", "measurement_hash", "per_problem")
    missing = [name for name in needed if not isinstance(value, dict) or name not in value]
    if missing:
        raise InputError(f"{file}: {missing[0]} is missing; give a metrics.json of this program.")
    return dict(value)


def _counts(metrics: Mapping[str, Any], path: Path) -> Counts:
    """(correct, scored samples) of each problem."""
    if not metrics["complete"]:
        raise InputError(f"{path}: its score is incomplete; finish the run first.")
    try:
        counts = {str(r["id"]): (int(r["correct"]), int(r["n"])) for r in metrics["per_problem"]}
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{path}: per_problem holds a malformed row ({error!r}).") from error
    if not counts or not all(0 <= correct <= n and n for correct, n in counts.values()):
        raise InputError(f"{path}: per_problem must hold correct and n of each problem.")
    return counts


def _mean(counts: Counts) -> float:
    return math.fsum(correct / n for correct, n in counts.values()) / len(counts)


def _fields(one: Mapping[str, Any], other: Mapping[str, Any], part: str) -> list[Difference] | None:
    first, second = one.get(part), other.get(part)
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return None
    return differences(first, second)


def _names(found: list[Difference] | None) -> list[str] | None:
    return None if found is None else [difference.field for difference in found]
