"""What a process has read of single evaluations, as long as none of them changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")
Ranks = Mapping[int, int]  # by evaluation
MOST_FIGURES = 2_000  # evaluations, of some kilobytes each
MOST_VALUES = 100_000  # of one column
MOST_COLUMNS = 16
MOST_RANKS = 64


class Known(Generic[Value]):
    """Values by evaluation. Threads share it: it grows, or is given up as a whole."""

    def __init__(self, most: int, held: Mapping[int, Value] | None = None) -> None:
        self._most = most
        self._held = dict(held or {})

    def of(
        self, wanted: Iterable[int], read: Callable[[Collection[int]], Mapping[int, Value]]
    ) -> dict[int, Value]:
        """Those of the evaluations that there are; ``read`` is asked for what is not known."""
        keys, held = set(wanted), self._held
        found = {pk: held[pk] for pk in keys if pk in held}
        if missing := keys - found.keys():
            given = read(missing)
            found |= given
            if len(held) + len(given) > self._most:
                held = self._held = {}
            if len(given) <= self._most:
                held.update(given)
        return found

    def without(self, changed: Collection[int]) -> Known[Value]:
        """Another one, that knows nothing of these."""
        held = self._held.copy()
        return Known(self._most, {pk: held[pk] for pk in held.keys() - changed})


class Memo:
    """Goes with one state of the scores; the next one begins with what did not change."""

    def __init__(self) -> None:
        self.figures: Known[Any] = Known(MOST_FIGURES)
        self._columns: dict[str, Known[Any]] = {}
        self._ranks: dict[tuple[int, ...], Ranks] = {}

    def column(self, key: str) -> Known[Any]:
        """What is known of a column."""
        if key not in self._columns and len(self._columns) >= MOST_COLUMNS:
            self._columns = {}
        return self._columns.setdefault(key, Known(MOST_VALUES))

    def ranks(self, evaluations: tuple[int, ...], rank: Callable[[], Ranks]) -> Ranks:
        """The ranks among these evaluations, by ``rank`` where they are not known."""
        found = self._ranks.get(evaluations)
        if found is None:
            if len(self._ranks) >= MOST_RANKS:
                self._ranks = {}
            found = self._ranks[evaluations] = rank()
        return found

    def without(self, changed: Collection[int]) -> Memo:
        """What is still good after these evaluations changed."""
        left, gone = Memo(), frozenset(changed)
        left.figures = self.figures.without(gone)
        columns, ranks = self._columns.copy(), self._ranks.copy()
        left._columns = {key: known.without(gone) for key, known in columns.items()}
        left._ranks = {key: found for key, found in ranks.items() if gone.isdisjoint(key)}
        return left
