"""Who stands where on the leaderboard, told from numbers alone.

An installation holds tens of thousands of scores, a page some rows. So the rows' order is made of
columns of numbers (``scores``), and what the rows say is read for one page only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db.models.fields.json import KeyTransform

from webapp.leaderboard import columns
from webapp.leaderboard.columns import Column
from webapp.leaderboard.scores import Floats, Ints, Scores
from webapp.runs.models import Evaluation

DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Standings:
    """The newest evaluation of every checkpoint, benchmark and measurement; arrays run alike."""

    names: Sequence[str]  # benchmarks
    pk: Ints
    checkpoint: Ints
    benchmark: Ints  # an index of ``names``
    measurement: Ints  # one number for each benchmark and measurement hash
    created: Floats  # seconds since 1970
    score: Floats  # pass@1; nan where samples have no verdict

    @classmethod
    def read(cls, scores: Scores, names: Iterable[str]) -> Standings:
        """Those of the scores that are on these benchmarks."""
        wanted = list(names)
        places = {name: place for place, name in enumerate(wanted)}
        of = np.array([places.get(name, -1) for _, name, _ in scores.benchmarks], dtype=np.int64)
        benchmark = of[scores.benchmark]
        there = benchmark >= 0
        every = cls(
            wanted, scores.pk[there], scores.checkpoint[there], benchmark[there],
            scores.measurement[there], scores.created[there], scores.score[there],
        )  # fmt: skip
        return every._newest()

    def _newest(self) -> Standings:
        """Of each checkpoint and measurement the evaluation that was made last."""
        latest = np.lexsort((-self.pk, -self.created))
        keys = self.checkpoint * (1 + self.measurement.max(initial=0)) + self.measurement
        _, first = np.unique(keys[latest], return_index=True)
        return self._of(latest[first])

    def _of(self, chosen: Ints | npt.NDArray[np.bool_]) -> Standings:
        return Standings(
            self.names, self.pk[chosen], self.checkpoint[chosen], self.benchmark[chosen],
            self.measurement[chosen], self.created[chosen], self.score[chosen],
        )  # fmt: skip

    @cached_property
    def usual(self) -> dict[str, tuple[int, int]]:
        """By benchmark (measurement, its newest evaluation): what most have; of two, the newer."""
        if not len(self.pk):
            return {}
        common = np.bincount(self.measurement)[self.measurement]
        order = np.lexsort((-self.pk, -self.created, -common, self.benchmark))
        found, first = np.unique(self.benchmark[order], return_index=True)
        chosen = order[first]
        held = zip(self.measurement[chosen].tolist(), self.pk[chosen].tolist(), strict=True)
        return dict(zip((self.names[place] for place in found), held, strict=True))

    def of(self, measurement: int) -> list[int]:
        """The complete evaluations of one measurement of a benchmark, by primary key."""
        found: list[int] = self.pk[(self.measurement == measurement) & self._complete].tolist()
        return sorted(found)

    @property
    def _complete(self) -> npt.NDArray[np.bool_]:
        return ~np.isnan(self.score)

    def scores(self) -> dict[int, float]:
        """pass@1 by evaluation, of the complete ones."""
        pks, scores = self.pk[self._complete], self.score[self._complete]
        return dict(zip(pks.tolist(), scores.tolist(), strict=True))

    def places(
        self, checkpoints: Collection[int], *, same: bool, since: date | None, until: date | None
    ) -> Places:
        """A row for each further measurement of a benchmark; the usual ones stand in the first."""
        usual = [measurement for measurement, _ in self.usual.values()]
        is_usual = np.isin(self.measurement, usual)
        wanted = np.isin(self.checkpoint, list(checkpoints))
        if same:
            wanted &= is_usual
        if since is not None:
            wanted &= self.created >= _start(since)
        if until is not None:
            wanted &= self.created < _start(until) + DAY_SECONDS
        left, first = self._of(wanted), is_usual[wanted]
        order = np.lexsort((-left.pk, -left.created, ~first, left.benchmark, left.checkpoint))
        left, first = left._of(order), first[order]
        group = left.checkpoint * len(self.names) + left.benchmark
        place = np.arange(len(group))
        begins = np.append(True, group[1:] != group[:-1]) if len(group) else group.astype(bool)
        depth = place - np.maximum.accumulate(np.where(begins, place, 0))
        # Rows are told apart by checkpoint and depth; an evaluation belongs to one of them.
        keys = left.checkpoint * (1 + depth.max(initial=0)) + depth
        _, where, row = np.unique(keys, return_index=True, return_inverse=True)
        return Places(left, row, left.checkpoint[where], first)


@dataclass(frozen=True)
class Places:
    """The rows to be, of which those of a page are made."""

    standings: Standings  # whose evaluations stand in them
    row: Ints  # of each evaluation
    checkpoint: Ints  # of each row
    usual: npt.NDArray[np.bool_]  # whether each evaluation was measured as most are

    def __len__(self) -> int:
        return len(self.checkpoint)

    @property
    def mixed(self) -> bool:
        """Whether any was measured otherwise than most are."""
        return not self.usual.all()

    @property
    def newest(self) -> Floats:
        """When the newest evaluation of each row was made, in seconds since 1970."""
        found = np.zeros(len(self))
        np.maximum.at(found, self.row, self.standings.created)
        return found

    def values(
        self, benchmark: str, values: Mapping[int, float | None] | None = None
    ) -> list[float]:
        """Each row's figure on a benchmark, nan where it has none: pass@1, or of ``values``."""
        found = np.full(len(self), np.nan)
        if benchmark in self.standings.names:
            there = self.standings.benchmark == self.standings.names.index(benchmark)
            given = self.standings.score[there]
            if values is not None:
                pks = self.standings.pk[there].tolist()
                given = np.array([values.get(pk) for pk in pks], dtype=np.float64)
            found[self.row[there]] = given
        made: list[float] = found.tolist()
        return made

    def held(self, row: int) -> dict[str, tuple[int, bool]]:
        """By the benchmark's name (evaluation, whether measured as most are), of one row."""
        (there,) = np.nonzero(self.row == row)
        names = [self.standings.names[place] for place in self.standings.benchmark[there].tolist()]
        pks, usual = self.standings.pk[there].tolist(), self.usual[there].tolist()
        return dict(zip(names, zip(pks, usual, strict=True), strict=True))


def _start(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


def values(scores: Scores, column: Column) -> Mapping[int, float | None]:
    """What a column of a benchmark says of each evaluation on it; None where it is undefined.

    One query, or none where all was read before.
    """
    name = column.part_of_metrics
    part: Any = "summary"
    for key in name:
        part = KeyTransform(key, part)

    def read(evaluations: Collection[int]) -> dict[int, float | None]:
        given = Evaluation.objects.filter(pk__in=evaluations, metrics__isnull=False)
        rows = given.order_by().annotate(part=part)
        found = {}
        for pk, samples, given in rows.values_list("pk", "samples", "part"):
            metrics: Any = given
            for key in reversed(name):
                metrics = {key: metrics}
            found[pk], _ = columns.value_of(column, metrics | {"samples": samples})
        return found

    wanted = scores.on({column.benchmark}).pk.tolist()
    return scores.memo.column(column.key).of(wanted, read)


def number_formats(scores: Scores) -> Mapping[int, str]:
    """In which number format each evaluation's model ran, blank where nobody knows; as above."""

    def read(evaluations: Collection[int]) -> dict[int, str]:
        rows = Evaluation.objects.filter(pk__in=evaluations).order_by()
        given = rows.annotate(dtype=KeyTransform("dtype", "engine")).values_list("pk", "dtype")
        return {pk: str(dtype or "") for pk, dtype in given}

    return scores.memo.column("dtype").of(scores.pk.tolist(), read)
