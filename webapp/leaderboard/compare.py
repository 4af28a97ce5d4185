"""Two to eight evaluations side by side, on the problems that all of them share.

Counts are added up by the database: a comparison of eight evaluations of 500 problems with 64
samples reads 4,000 sums, not 256,000 rows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum

from evaluator.comparison import Contrast, against
from evaluator.metrics import pass_at_k
from evaluator.records import Outcome
from evaluator.statistics import Count as Scored
from evaluator.statistics import mean_interval
from webapp.benchmarks.models import Problem
from webapp.checkpoints.queries import undecontaminated
from webapp.core.models import User
from webapp.leaderboard import passports, scores
from webapp.leaderboard.evaluations import seen
from webapp.runs.models import Completion, Evaluation

FEWEST, MOST = 2, 8
ERRORS = [str(outcome) for outcome in Outcome if outcome.is_error]
Key = tuple[str, int]  # a problem: its content hash, and which of those with that content it is


@dataclass(frozen=True, slots=True)
class ProblemRef:
    """A problem of the baseline's benchmark, without its texts."""

    pk: int
    problem_id: str
    position: int
    subject: str
    level: str


@dataclass(frozen=True, slots=True)
class Tally:
    """One problem's samples in one evaluation."""

    problem: ProblemRef  # in that evaluation's benchmark
    scored: int
    correct: int
    tokens: int | None = None  # in all, of the samples whose tokens were counted
    counted: int = 0

    @property
    def share(self) -> float | None:
        """Right out of the scored ones, in [0, 1]; None where none is scored."""
        return self.correct / self.scored if self.scored else None


@dataclass(frozen=True)
class Side:
    """One evaluation of a comparison, with its letter and its tallies of all its problems."""

    evaluation: Evaluation
    letter: str
    tallies: Mapping[Key, Tally]
    is_baseline: bool = False
    undecontaminated: bool = False

    @property
    def number(self) -> int:
        """1 for A: the class of its colour."""
        return ord(self.letter) - ord("A") + 1

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return str(self.evaluation.checkpoint or self.evaluation.role)

    @property
    def complete(self) -> bool:
        """Whether every sample has a verdict."""
        return bool((self.evaluation.metrics or {}).get("complete"))

    @property
    def is_compared(self) -> bool:
        """Whether its problems decide which are shared: one without a score takes none away."""
        return self.complete or self.is_baseline

    @cached_property
    def figures(self) -> dict[str, Mapping[str, Any]]:
        """What the metrics hold of each problem, by the problem's id."""
        rows = (self.evaluation.metrics or {}).get("per_problem") or []
        return {str(row["id"]): row for row in rows}


@dataclass(frozen=True)
class Score:
    """A side's figures on the shared problems; shares in [0, 1], undefined is None."""

    side: Side
    value: float | None
    low: float | None
    high: float | None
    tokens: float | None  # mean per completion
    contrast: Contrast | None  # against the baseline; None for itself, and for incomplete ones
    on_frontier: bool = False  # no other is at least as right with fewer tokens


@dataclass(frozen=True)
class Group:
    """The shared problems of one subject or level."""

    name: str
    problems: int
    scores: list[tuple[Side, float | None, float | None, float | None]]  # (value, low, high)


@dataclass(frozen=True)
class Comparison:
    """The sides, and what they amount to."""

    sides: list[Side]
    problems: list[tuple[Key, ProblemRef]]  # shared, in the baseline's order
    scores: list[Score] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)  # what a reader has to be warned of
    notes: list[str] = field(default_factory=list)

    @property
    def baseline(self) -> Side:
        """What the others are compared with."""
        return next(side for side in self.sides if side.is_baseline)

    @property
    def contrasts(self) -> dict[str, Contrast]:
        """The differences from the baseline by letter, of those that were compared."""
        return {s.side.letter: s.contrast for s in self.scores if s.contrast is not None}

    @property
    def is_whole(self) -> bool:
        """Whether all problems of all sides that are compared are shared."""
        return all(
            len(side.tallies) == len(self.problems) for side in self.sides if side.is_compared
        )

    def counts(self, side: Side, keys: Iterable[Key] | None = None) -> list[Scored]:
        """(correct, scored) of the shared problems that this side has scored samples of."""
        chosen = (key for key, _ in self.problems) if keys is None else keys
        tallies = (side.tallies[key] for key in chosen)
        return [(tally.correct, tally.scored) for tally in tallies if tally.scored]


def graded(user: User) -> QuerySet[Evaluation]:
    """What the person may compare: evaluations that they see and that have figures."""
    return seen(user).filter(metrics__isnull=False, checkpoint__isnull=False)


def find(user: User, wanted: Sequence[int]) -> tuple[list[Evaluation], list[int]]:
    """Graded evaluations in the order wanted, each once, and the keys of which there is none."""
    keys = list(dict.fromkeys(wanted))
    found = (
        graded(user)
        .select_related("checkpoint__project", "benchmark", "run")
        .defer("rendered_prompt", "run__config")
        .in_bulk(keys)
    )
    return [found[key] for key in keys if key in found], [key for key in keys if key not in found]


def with_parent(user: User, found: Evaluation) -> list[Evaluation]:
    """The evaluation after its parent checkpoint's on the same problems, where there is one.

    Another version of the benchmark has other problems under the same ids. Of several the one of
    the same measurement comes first, then the newest.
    """
    parent = None if found.checkpoint is None else found.checkpoint.parent_id
    if parent is None:
        return [found]
    parents = (
        graded(user)
        .filter(checkpoint_id=parent, benchmark_id=found.benchmark_id)
        .select_related("checkpoint", "benchmark", "run")
        .defer("rendered_prompt", "run__config")
        .order_by("-created_at")
    )
    best = max(
        parents[:20], key=lambda each: each.measurement_hash == found.measurement_hash, default=None
    )
    return [found] if best is None else [best, found]


def baseline_of(evaluations: Sequence[Evaluation], wanted: int | None) -> Evaluation:
    """The one asked for, else the parent of most of the others, else the first."""
    for each in evaluations:
        if each.pk == wanted:
            return each
    parents = Counter(each.checkpoint.parent_id for each in evaluations if each.checkpoint)
    return max(evaluations, key=lambda each: parents.get(each.checkpoint_id, 0))


def others(user: User, evaluations: Sequence[Evaluation], most: int = 30) -> list[Evaluation]:
    """Evaluations on the same benchmarks that are not among these: parents' first, then the newest.

    Each has ``is_parent``: whether its checkpoint is the parent of one of these.
    """
    parents = {each.checkpoint.parent_id for each in evaluations if each.checkpoint} - {None}
    seen = scores.current().seen(user)
    names = {each.benchmark.name for each in evaluations}
    if names:
        seen = seen.on(names)
    pks = seen.newest(most, first=parents, without={each.pk for each in evaluations})
    rows = (
        Evaluation.objects.select_related("checkpoint", "benchmark")
        .only("checkpoint__name", "benchmark__title", "samples", "created_at", "pass_at_1")
        .annotate(is_parent=Q(checkpoint__in=[*parents, 0]))  # an empty list is no condition
        .in_bulk(pks)
    )
    return [rows[pk] for pk in pks if pk in rows]


def compare(evaluations: Sequence[Evaluation], baseline: Evaluation) -> Comparison:
    """Set the evaluations side by side, in a number of queries that does not grow with them."""
    problems = _problems({each.benchmark_id for each in evaluations})
    tallies = _tallies(evaluations, problems)
    marked = undecontaminated(each.checkpoint_id for each in evaluations)
    sides = [
        Side(
            evaluation=each,
            letter=chr(ord("A") + place),
            tallies=tallies[each.pk],
            is_baseline=each.pk == baseline.pk,
            undecontaminated=each.checkpoint_id in marked,
        )
        for place, each in enumerate(evaluations)
    ]
    own = tallies[baseline.pk]
    shared = [
        (key, tally.problem)
        for key, tally in own.items()
        if all(key in side.tallies for side in sides if side.is_compared)
    ]
    found = Comparison(sides, sorted(shared, key=lambda item: item[1].position))
    found = replace(found, scores=_scores(found))
    return replace(found, sentences=_sentences(found), notes=_notes(found))


def _problems(benchmarks: set[int]) -> dict[int, tuple[Key, ProblemRef]]:
    """Every problem of these benchmarks by its primary key, without its texts."""
    rows = (
        Problem.objects.filter(benchmark__in=benchmarks)
        .order_by("benchmark_id", "position")
        .values_list(
            "benchmark_id", "content_hash", "pk", "problem_id", "position", "subject", "level"
        )
    )
    found: dict[int, tuple[Key, ProblemRef]] = {}
    seen: Counter[tuple[int, str]] = Counter()
    for benchmark, content, pk, problem_id, position, subject, level in rows.iterator():
        key = content, seen[benchmark, content]
        found[pk] = key, ProblemRef(pk, problem_id, position, subject, level)
        seen[benchmark, content] += 1
    return found


def _tallies(
    evaluations: Sequence[Evaluation], problems: Mapping[int, tuple[Key, ProblemRef]]
) -> dict[int, dict[Key, Tally]]:
    """Every evaluation's samples added up by problem: one query; what was never drawn is absent."""
    scored = Q(outcome__gt="") & ~Q(outcome__in=ERRORS)
    rows = (
        Completion.objects.filter(evaluation__in=[each.pk for each in evaluations])
        .order_by()
        .values_list("evaluation_id", "problem_id")
        .annotate(
            scored=Count("pk", filter=scored),
            correct=Count("pk", filter=Q(outcome=Outcome.CORRECT)),
            tokens=Sum("completion_tokens", filter=scored),
            counted=Count("completion_tokens", filter=scored),
        )
    )
    found: dict[int, dict[Key, Tally]] = defaultdict(dict)
    for evaluation, pk, *sums in rows.iterator():
        key, problem = problems[pk]
        found[evaluation][key] = Tally(problem, *sums)
    return found


def _scores(found: Comparison) -> list[Score]:
    complete = [side for side in found.sides if side.complete and found.problems]
    contrasts: dict[str, Contrast] = {}
    if found.baseline in complete:
        runs = [side for side in complete if not side.is_baseline]
        compared = against(found.counts(found.baseline), [found.counts(side) for side in runs])
        contrasts = {side.letter: each for side, each in zip(runs, compared, strict=True)}
    scores = []
    for side in found.sides:
        value, low, high = _mean(found.counts(side) if side in complete else [])
        tallies = [side.tallies[key] for key, _ in found.problems if key in side.tallies]
        counted = sum(tally.counted for tally in tallies)
        tokens = sum(tally.tokens or 0 for tally in tallies) / counted if counted else None
        scores.append(Score(side, value, low, high, tokens, contrasts.get(side.letter)))
    return [_placed(score, scores) for score in scores]


def _mean(counts: Sequence[Scored]) -> tuple[float | None, float | None, float | None]:
    if not counts:
        return None, None, None
    means = [correct / scored for correct, scored in counts]
    return sum(means) / len(means), *mean_interval(means)


def _placed(score: Score, scores: Sequence[Score]) -> Score:
    """Mark a score that no other one beats in both accuracy and tokens."""
    if score.value is None or score.tokens is None:
        return score
    beaten = any(
        other.value is not None
        and other.tokens is not None
        and (other.value >= score.value and other.tokens <= score.tokens)
        and (other.value > score.value or other.tokens < score.tokens)
        for other in scores
    )
    return replace(score, on_frontier=not beaten)


def _sentences(found: Comparison) -> list[str]:
    """What keeps the sides from being compared, or makes it worth less."""
    said = []
    apart = [
        side for side in found.sides if side.is_compared and len(side.tallies) > len(found.problems)
    ]
    if not found.problems:
        said.append(
            "These evaluations share no problem, so nothing can be compared; choose evaluations "
            "on the same benchmark."
        )
    elif apart:
        left = ", ".join(
            f"{len(side.tallies) - len(found.problems)} of {side.letter}" for side in apart
        )
        said.append(
            f"Only the {_count(len(found.problems), 'problem')} that all of them share are "
            f"compared; left out are {left}."
        )
    base = found.baseline
    for side in found.sides:
        if not side.complete:
            said.append(
                f"{side.letter} is incomplete: some samples have no verdict, so it has no score "
                "here and is compared with nothing. Retry its run."
            )
        fields = passports.differing(side.evaluation, base.evaluation)
        if fields is not None:
            names = ", ".join(fields) if fields else "fields that were not kept"
            said.append(
                f"{side.letter} was measured otherwise than the baseline {base.letter} ({names}): "
                "a difference may come from that."
            )
        contrast = found.contrasts.get(side.letter)
        if contrast is not None and not contrast.paired.same_n:
            said.append(
                f"{side.letter} and the baseline {base.letter} have unlike numbers of samples, so "
                "their test is a stricter one and their difference has no interval."
            )
        if side.undecontaminated:
            said.append(
                f"{side.letter} was not decontaminated: it may have been taught these problems."
            )
    return said


def _notes(found: Comparison) -> list[str]:
    """What could move a figure a little."""
    base = found.baseline
    return [
        f"{side.letter} and the baseline {base.letter} also differ in {', '.join(fields)}."
        for side in found.sides
        if (fields := passports.run_differing(side.evaluation, base.evaluation))
    ]


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def groups(found: Comparison) -> list[tuple[str, list[Group]]]:
    """pass@1 by subject and by level, where the shared problems name more than one."""
    sides = [score.side for score in found.scores if score.value is not None]
    made = []
    for name in ("level", "subject"):
        members: dict[str, list[Key]] = defaultdict(list)
        for key, ref in found.problems:
            if value := getattr(ref, name):
                members[value].append(key)
        if len(members) < 2 or not sides:
            continue
        made.append(
            (
                name,
                [
                    Group(value, len(keys), [(s, *_mean(found.counts(s, keys))) for s in sides])
                    for value, keys in sorted(members.items(), key=lambda item: _natural(item[0]))
                ],
            )
        )
    return made


def _natural(name: str) -> tuple[int, str]:
    """Levels are numbers where they are written as such: 10 after 9."""
    return (int(name), "") if name.isdecimal() else (0, name)


def curves(found: Comparison) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """``{"pass@k": {letter: [(k, share)]}, "cons@k": …}`` of the complete sides.

    pass@k is that of the shared problems. cons@k needs the classes of equivalent answers, which
    only the metrics of a whole evaluation know: it is left out where problems are.
    """
    made: dict[str, dict[str, list[tuple[int, float]]]] = {"pass@k": {}, "cons@k": {}}
    for side in found.sides:
        if not side.complete or not found.problems:
            continue
        metrics = side.evaluation.metrics or {}
        counts = found.counts(side)
        most = min(n for _, n in counts)
        ks = sorted(k for k in map(int, metrics["pass@k"]) if k <= most)
        solved = {k: [pass_at_k(n, c, k) or 0.0 for c, n in counts] for k in ks}
        made["pass@k"][side.letter] = [(k, sum(each) / len(each)) for k, each in solved.items()]
        if found.is_whole:
            made["cons@k"][side.letter] = [
                (k, metrics["cons@k"][str(k)])
                for k in ks
                if metrics["cons@k"].get(str(k)) is not None
            ]
    return made
