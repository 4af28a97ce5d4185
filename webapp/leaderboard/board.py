"""The leaderboard: a row for each checkpoint and published model, a cell for each column chosen.

A checkpoint that was measured on a benchmark in several ways has a row for each: cells of one
column that do not compare stand apart and are marked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property

import numpy as np

from evaluator import programs_report
from evaluator.programs_report import RatingRow
from evaluator.ranking import ranks
from evaluator.rating import Mode
from evaluator.statistics import reproduction_z
from webapp.checkpoints.queries import undecontaminated
from webapp.core.models import User
from webapp.leaderboard import columns, published, queries, scores, standings
from webapp.leaderboard.choice import SIZES, Choice
from webapp.leaderboard.columns import Column
from webapp.leaderboard.memo import Memo
from webapp.leaderboard.published import Figure, Model
from webapp.leaderboard.queries import Measured
from webapp.leaderboard.scores import Facts, Floats, Scores
from webapp.leaderboard.standings import Places, Standings

ROWS_PER_PAGE = 25  # of up to a dozen columns: what keeps a page light
# Every pair is tested, and among more rows hardly one would be told from another by then.
MOST_RANKED = 400


@dataclass(frozen=True, slots=True)
class Cell:
    """One column of one row. Shares are in [0, 1], ratings Elo points; undefined is None."""

    column: Column
    value: float | None = None
    low: float | None = None
    high: float | None = None
    k: int | None = None  # of a curve whose k is each evaluation's own n
    text: str = ""  # of a fact
    measured: Measured | None = None
    comparable: bool = True  # its measurement is the one that most have
    differs: tuple[str, ...] = ()  # else the fields in which it is not
    leads: bool = False  # the row's first cell of this benchmark: it says how it was measured
    figures: tuple[Figure, ...] = ()  # what others published
    z: tuple[tuple[float, Figure], ...] = ()  # how far ours lies from each, in re-run errors
    ratings: tuple[RatingRow, ...] = ()
    unrated: str = ""  # why programs that were measured here have no rating

    @property
    def order(self) -> float | None:
        """What the row is sorted by: what was measured here, else what was published first."""
        if self.value is not None or not self.figures:
            return self.value
        return self.figures[0].value

    @property
    def is_incomplete(self) -> bool:
        """Some samples have no verdict, so the score lies between bounds."""
        return self.measured is not None and not self.measured.complete


@dataclass(frozen=True, slots=True)
class Row:
    """A checkpoint's scores under one measurement of each benchmark, or a published model's."""

    name: str
    cells: list[Cell]
    facts: Facts | None = None
    model: Model | None = None
    rank: int | None = None
    tick: int | None = None  # the evaluation that is compared when the row is ticked
    newest: datetime | None = None
    undecontaminated: bool = False  # it may have been taught the benchmark's own problems
    unsafe: bool = False  # programs ran without isolation
    served_as: str = ""
    projects: str = ""  # whose runs measured it

    @property
    def is_published(self) -> bool:
        """Whether somebody else measured it."""
        return self.facts is None

    def cell(self, key: str) -> Cell | None:
        """The cell of a column."""
        return next((cell for cell in self.cells if cell.column.key == key), None)


@dataclass(frozen=True)
class Board:
    """What a page shows: places in order, before they are cut into pages, and how to read them."""

    columns: list[Column]
    places: list[int | Row]  # a row of ``standing``, or a published one, which is whole
    standing: Places
    sort: str
    flipped: bool
    ranked: Column | None  # the score that ranks refer to
    ranks: Mapping[int, int]  # by evaluation
    unranked: int  # scores that ranks would refer to, where they are more than ``MOST_RANKED``
    benchmarks: Mapping[str, tuple[str, int]]  # (title, evaluations) by name
    options: Mapping[str, list[str]]  # what filters can be set to
    facts: Mapping[int, Facts]
    memo: Memo
    usual: Mapping[str, int]  # an evaluation of each benchmark's usual measurement

    @property
    def measured(self) -> int:
        """Rows that were measured here."""
        return len(self.standing)

    @property
    def mixed(self) -> bool:
        """Whether a column holds scores that do not compare."""
        return self.standing.mixed

    @cached_property
    def rows(self) -> list[Row]:
        """All of it; a page reads its own places only."""
        return self.read(self.places)

    def read(self, places: Sequence[int | Row]) -> list[Row]:
        """What stands in these places: two queries, or one."""
        thin = {place: self.standing.held(place) for place in places if isinstance(place, int)}
        wanted = [pk for held in thin.values() for pk, _ in held.values()]
        found = queries.measured(wanted, self.memo)
        marked = undecontaminated(int(self.standing.checkpoint[place]) for place in thin)
        rows = []
        for place in places:
            if isinstance(place, Row):
                rows.append(place)
                continue
            # What has been deleted since is no longer there.
            held = {
                name: (found[pk], usual) for name, (pk, usual) in thin[place].items() if pk in found
            }
            if not held:
                continue
            facts = self.facts[int(self.standing.checkpoint[place])]
            row = _measured_row(facts, held, self.columns, ranked=self.ranked)
            rank = self.ranks.get(row.tick or 0)
            rows.append(replace(row, rank=rank, undecontaminated=facts.pk in marked))
        return rows


def build(user: User, choice: Choice) -> Board:
    """The board of a choice, of what the person may look at.

    A project is no filter like the others: usual measurements, ranks and counts are then those of
    its runs alone.
    """
    seen = scores.current().seen(user)
    here = seen.counts()
    known = _known(here, choice.project)
    given = seen.of_project(choice.project)
    facts = given.checkpoints()
    shown = _columns(choice, known)
    names = dict.fromkeys(column.benchmark for column in shown if column.benchmark)
    found = Standings.read(given, names)
    ranked = _ranked_column(choice, shown)
    rankable = _rankable(ranked, found)
    placed = _ranks(rankable, given.memo) if len(rankable) <= MOST_RANKED else {}
    kept = [pk for pk, each in facts.items() if _keeps(choice, each, seen)]
    standing = found.places(
        kept if choice.published != "only" else (),
        same=choice.same, since=choice.since, until=choice.until,
    )  # fmt: skip
    whole = _published_rows(choice, shown) if choice.published != "no" else []
    sort = choice.sort if choice.sort in {"name", "newest", *(c.key for c in shown)} else ""
    if not sort and choice.sort == "rating":
        sort = next((column.key for column in shown if column.is_rating), "")
    sort = sort or (ranked.key if ranked else "name")
    by = next((column for column in shown if column.key == sort), None)
    said = _said(sort, by, given, standing, facts)
    return Board(
        columns=shown,
        places=_sorted(standing, whole, facts, said, sort, flipped=choice.flipped),
        standing=standing,
        sort=sort,
        flipped=choice.flipped,
        ranked=ranked,
        ranks=placed,
        unranked=len(rankable) if len(rankable) > MOST_RANKED else 0,
        benchmarks=known,
        options=_options(facts.values(), {project for _, _, project, _ in here}),
        facts=facts,
        memo=given.memo,
        usual={name: pk for name, (_, pk) in found.usual.items()},
    )


def with_differences(board: Board, rows: Sequence[Row]) -> list[Row]:
    """The rows of one page, otherwise measured cells with the fields: one query, or none."""
    others = {
        cell.measured.pk
        for row in rows
        for cell in row.cells
        if cell.leads and not cell.comparable and cell.measured is not None
    }
    if not others:
        return list(rows)
    found = queries.differences(others, board.usual)
    return [
        replace(row, cells=[
            replace(cell, differs=tuple(found.get(cell.measured.pk, ())))
            if cell.measured is not None and not cell.comparable
            else cell
            for cell in row.cells
        ])
        for row in rows
    ]  # fmt: skip


def _known(here: Iterable[tuple[str, str, str, int]], wanted: str) -> dict[str, tuple[str, int]]:
    """(title, evaluations) by the benchmark's name, of one project's runs or of all."""
    found: dict[str, tuple[str, int]] = {}
    for name, title, project, count in here:
        if wanted in ("", project):
            found[name] = title, count + found.get(name, ("", 0))[1]
    return found


def _columns(choice: Choice, known: Mapping[str, tuple[str, int]]) -> list[Column]:
    titles = {name: title for name, (title, _) in known.items()}
    shown = columns.chosen(choice.keys, titles)
    if shown:
        return shown
    rated = {key.split(":")[0] for model in published.models() for key in model.figures
             if key.endswith(":rating")}  # fmt: skip
    by_use = sorted(known, key=lambda name: (-known[name][1], name))
    everywhere = {name for model in published.models() for name in model.benchmarks}
    benchmark = choice.benchmark if choice.benchmark in everywhere | set(known) else ""
    return columns.chosen(columns.default_keys(benchmark, by_use, rated), titles)


def _ranked_column(choice: Choice, shown: Sequence[Column]) -> Column | None:
    """pass@1 of the benchmark that the board is sorted by, else the first pass@1."""
    scores = [column for column in shown if column.is_score]
    wanted = next((c.benchmark for c in shown if c.key == choice.sort), None)
    return next((c for c in scores if c.benchmark == wanted), scores[0] if scores else None)


def _keeps(choice: Choice, facts: Facts, seen: Scores) -> bool:
    kinds = {"student": lambda: facts.is_student, "base": lambda: seen.is_parent(facts)}
    return (
        choice.family in ("", facts.family)
        and choice.teacher in ("", facts.teacher)
        and choice.owner in ("", facts.owner)
        and (not choice.tag or choice.tag in facts.tags)
        and (not choice.kind or kinds[choice.kind]())
        and _sized(choice, facts.parameters)
    )


def _sized(choice: Choice, parameters: int | None) -> bool:
    if not choice.size:
        return True
    _, low, high = SIZES[choice.size]
    return parameters is not None and low <= parameters < high


def _measured_row(
    facts: Facts,
    held: Mapping[str, tuple[Measured, bool]],
    shown: Sequence[Column],
    *,
    ranked: Column | None,
) -> Row:
    every = [each for each, _ in held.values()]
    served = next((each.served_as for each in every if each.served_as), "")
    model = published.of(facts.name, served.split(" at ")[0])
    newest = max(each.created_at for each in every)
    cells, led = [], set()
    for column in shown:
        if not column.benchmark:
            dtypes = [str(each.engine.get("dtype") or "") for each in every]
            cells.append(Cell(column, text=_fact(column, facts, dtypes, newest)))
        elif column.benchmark not in held:
            cells.append(Cell(column))
        else:
            each, is_usual = held[column.benchmark]
            cell = _cell(column, each, model)
            cells.append(replace(cell, comparable=is_usual, leads=column.benchmark not in led))
            led.add(column.benchmark)
    main, _ = held.get(ranked.benchmark if ranked else "", (every[0], True))
    return Row(
        name=facts.name,
        cells=cells,
        facts=facts,
        tick=main.pk,
        newest=newest,
        unsafe=any(programs_report.unsafe(each.metrics) for each in every),
        served_as=served,
        projects=", ".join(sorted({each.project for each in every})),
    )


def _cell(column: Column, each: Measured, model: Model | None) -> Cell:
    metrics = each.metrics
    value, k = columns.value_of(column, metrics)
    cell = Cell(column, value, k=k, measured=each)
    if column.is_score:
        source = metrics.get("pass@1") or {}
        if not each.complete:
            source = metrics.get("bounds") or {}
        alike = each.complete and each.is_drawn_as_published
        figures = model.figures.get(column.published_key, ()) if model and alike else ()
        error = (metrics.get("pass@1") or {}).get("se_rerun")
        z = [(reproduction_z(value or 0.0, figure.value, error), figure) for figure in figures]
        return replace(
            cell, low=source.get("low"), high=source.get("high"),
            z=tuple((distance, figure) for distance, figure in z if distance is not None),
        )  # fmt: skip
    if column.is_rating:
        rows = [row for row in programs_report.ratings(metrics) if row.mode == Mode.ELO]
        return replace(
            cell,
            ratings=tuple(rows if column.metric == "rating@1" else rows[1:]),
            unrated=(metrics.get("rating") or {}).get("missing") or "",
        )
    return cell


def _fact(column: Column, facts: Facts, dtypes: Iterable[str], newest: datetime) -> str:
    match column.metric:
        case "dtype":
            used = {dtype or facts.dtype for dtype in dtypes}
            return ", ".join(sorted(used - {""}))
        case "size":
            return "" if facts.parameters is None else f"{facts.parameters / 1e9:.3g}B"
        case "teacher":
            return facts.teacher
        case "owner":
            return facts.owner
    return f"{newest:%Y-%m-%d}"


def _published_rows(choice: Choice, shown: Sequence[Column]) -> list[Row]:
    """Published models with a figure in a column shown; they have no owner, tag or date here."""
    if choice.owner or choice.tag or choice.since or choice.until or choice.kind == "base":
        return []
    rows = []
    for model in published.models():
        cells = [
            Cell(column, figures=model.figures.get(column.published_key, ()))
            if column.benchmark
            else Cell(column, text=_published_fact(column, model))
            for column in shown
        ]
        wanted = (
            choice.family in ("", model.family)
            and choice.teacher in ("", model.teacher)
            and _sized(choice, model.parameters)
            and (not choice.kind or bool(model.teacher))
        )
        if wanted and any(cell.figures for cell in cells):
            rows.append(Row(model.name, cells, model=model))
    return rows


def _published_fact(column: Column, model: Model) -> str:
    if column.metric == "size" and model.parameters is not None:
        return f"{model.parameters / 1e9:.3g}B"
    return model.teacher if column.metric == "teacher" else ""


def _rankable(ranked: Column | None, found: Standings) -> list[int]:
    """Evaluations that ranks compare: those that are complete and measured as most are.

    Filters leave ranks as they are: they count all checkpoints.
    """
    if ranked is None or ranked.benchmark not in found.usual:
        return []
    return found.of(found.usual[ranked.benchmark][0])


def _ranks(evaluations: Sequence[int], memo: Memo) -> Mapping[int, int]:
    """Rank by evaluation; none where there is nothing to compare."""
    if len(evaluations) < 2:
        return {}

    def rank() -> dict[int, int]:
        held = queries.counts(evaluations)
        right, samples = zip(*held.values(), strict=True) if held else ((), ())
        return dict(zip(held, ranks(right, samples), strict=True))

    return memo.ranks(tuple(evaluations), rank)


def _said(
    sort: str,
    column: Column | None,
    given: Scores,
    standing: Places,
    facts: Mapping[int, Facts],
) -> Sequence[float | str]:
    """What each row is sorted by, but for names: nan or blank where there is nothing."""
    if sort == "newest":
        newest: list[float] = standing.newest.tolist()
        return newest
    if column is None:
        return [math.nan] * len(standing)
    if column.benchmark:
        values = None if column.is_score else standings.values(given, column)
        return standing.values(column.benchmark, values)
    dtypes = standings.number_formats(given) if column.metric == "dtype" else {}
    rows = zip(standing.checkpoint.tolist(), standing.newest.tolist(), strict=True)
    return [
        _fact(
            column, facts[checkpoint],
            [dtypes.get(pk, "") for pk, _ in standing.held(row).values()] if dtypes else (),
            datetime.fromtimestamp(newest, UTC),
        )
        for row, (checkpoint, newest) in enumerate(rows)
    ]  # fmt: skip


def _sorted(
    standing: Places,
    published_rows: Sequence[Row],
    facts: Mapping[int, Facts],
    said: Sequence[float | str],
    sort: str,
    *,
    flipped: bool,
) -> list[int | Row]:
    """Best first, words and names from A, newest first, or the other way round; blanks are last."""
    names = [facts[checkpoint].name for checkpoint in standing.checkpoint.tolist()]
    names += [row.name for row in published_rows]
    places: list[int | Row] = [*range(len(standing)), *published_rows]
    if sort == "name":
        order = sorted(range(len(names)), key=lambda at: names[at].lower(), reverse=flipped)
        return [places[at] for at in order]
    values, is_text = _numbers([*said, *(_published_value(row, sort) for row in published_rows)])
    blank, sign = np.isnan(values), 1 if is_text != flipped else -1
    by_name = sorted(range(len(names)), key=names.__getitem__)
    order = np.lexsort((np.where(blank, 0, sign * values)[by_name], blank[by_name])).tolist()
    return [places[by_name[at]] for at in order]


def _published_value(row: Row, sort: str) -> float | str | None:
    cell = row.cell(sort)
    return None if cell is None else cell.order if cell.column.benchmark else cell.text


def _numbers(values: Sequence[float | str | None]) -> tuple[Floats, bool]:
    """(numbers of the same order, nan where there is nothing; whether they stand for words)."""
    words = sorted({value for value in values if isinstance(value, str) and value})
    if not words:
        given = [math.nan if value in {None, ""} else value for value in values]
        return np.array(given, dtype=np.float64), False
    places = {word: place for place, word in enumerate(words)}
    given = [places.get(str(value), math.nan) for value in values]
    return np.array(given, dtype=np.float64), True


def _options(facts: Iterable[Facts], projects: set[str]) -> dict[str, list[str]]:
    """What filters can be set to; one project alone is nothing to choose from."""
    every = list(facts)
    models = published.models()
    found = {
        "project": projects if len(projects) > 1 else set(),
        "family": {each.family for each in every} | {model.family for model in models},
        "teacher": {each.teacher for each in every} | {model.teacher for model in models},
        "owner": {each.owner for each in every},
        "tag": {tag for each in every for tag in each.tags},
    }
    return {name: sorted(values - {""}) for name, values in found.items()}
