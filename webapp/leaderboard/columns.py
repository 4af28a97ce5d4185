"""The leaderboard's columns: any metric of any benchmark, and facts of the checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluator import benchmarks as registry
from evaluator.errors import InputError

MOST = 12  # columns on one page
# What can be chosen of every benchmark; any k in place of n can be written in the address.
METRICS = ("pass@1", "pass@n", "cons@n", "cons_string@n", "tokens", "truncated", "failed")
PROGRAM_METRICS = ("rating@1", "rating@8")
FACTS: Mapping[str, str] = {
    "dtype": "Number format", "size": "Parameters", "teacher": "Teacher", "date": "Measured",
    "owner": "Owner",
}  # fmt: skip

# Benchmarks that only published rows have, as their papers write them.
_TITLES = {"livecodebench": "LiveCodeBench", "codeforces": "Codeforces"}
_KEY = re.compile(
    r"(?P<benchmark>[A-Za-z0-9][A-Za-z0-9_-]{0,59}):"
    r"(?P<metric>(?P<curve>pass|cons|cons_string)@(?P<k>n|[1-9]\d{0,4})|rating@[18]"
    r"|tokens|truncated|failed)"
)
_CURVES = {"pass": "pass@k", "cons": "cons@k", "cons_string": "cons@k_string"}
_HELP = {
    "tokens": "mean tokens per completion",
    "truncated": "share of the samples that the token limit cut before an answer",
    "failed": "share of the samples without a verdict: the engine or the grader failed",
}
_WORDS = {"tokens": "tokens", "truncated": "truncated", "failed": "failed"}


@dataclass(frozen=True, slots=True)
class Column:
    """What stands in one column. ``benchmark`` is blank for a fact of the checkpoint."""

    key: str
    benchmark: str
    metric: str
    title: str  # the benchmark's; the fact's own
    name: str = ""  # the metric, literally
    help: str = ""

    @property
    def is_score(self) -> bool:
        """Whether it is pass@1, which has an interval, ranks, and published figures."""
        return self.metric == "pass@1"

    @property
    def is_rating(self) -> bool:
        """Whether its values are Elo points."""
        return self.metric.startswith("rating@")

    @property
    def is_share(self) -> bool:
        """Whether its values are shares in [0, 1]."""
        return bool(self.benchmark) and not self.is_rating and self.metric != "tokens"

    @property
    def part_of_metrics(self) -> tuple[str, ...]:
        """Where in an evaluation's metrics that is which :func:`value_of` reads."""
        match = _KEY.fullmatch(self.key)
        if self.is_score:
            return ("pass@1",)
        if match is not None and match["curve"]:
            return (_CURVES[match["curve"]],)
        if self.is_rating:
            return "rating", "elo", self.metric
        return ("tokens",) if self.metric == "tokens" else ("outcomes",)

    @property
    def published_key(self) -> str:
        """Under which published figures stand: cons@64 is what the papers give."""
        metric = {"cons@n": "cons@64", "rating@1": "rating"}.get(self.metric, self.metric)
        return f"{self.benchmark}:{metric}"


def title_of(name: str) -> str:
    """A benchmark's title, from the registry where it has one."""
    try:
        return registry.get(name).title
    except InputError:
        return _TITLES.get(name, name)


def parse(key: str, titles: Mapping[str, str]) -> Column | None:
    """The column of a key as ``aime_2024:cons@64`` or ``dtype``; None for what is none."""
    if key in FACTS:
        return Column(key, "", key, FACTS[key])
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    benchmark, metric = match["benchmark"], match["metric"]
    name = {"pass@1": "pass@1[avg-of-n]"}.get(metric, _WORDS.get(metric, metric))
    if match["curve"] == "cons_string":
        name = f"cons@{match['k']}, votes by string"
    title = titles.get(benchmark) or title_of(benchmark)
    return Column(key, benchmark, metric, title, name, _HELP.get(metric, ""))


def chosen(keys: Iterable[str], titles: Mapping[str, str]) -> list[Column]:
    """The columns of these keys, each once, at most ``MOST``."""
    found = [column for key in dict.fromkeys(keys) if (column := parse(key, titles))]
    return found[:MOST]


def default_keys(benchmark: str, measured: Sequence[str], rated: Iterable[str]) -> list[str]:
    """What is shown where nothing was chosen.

    For one benchmark its score with what to know of it; else the scores of those that were
    ``measured`` here. ``rated`` are the benchmarks whose answers are programs.
    """
    if not benchmark and len(measured) == 1:
        benchmark = measured[0]
    if benchmark:
        votes = "rating@1" if benchmark in set(rated) else "cons@n"
        metrics = ("pass@1", votes, "truncated", "failed")
        return [f"{benchmark}:{metric}" for metric in metrics] + ["dtype"]
    names = measured[:5] or ("aime_2024", "math_500", "gpqa_diamond", "codeforces")
    programs = [f"{name}:rating@1" for name in names if name in set(rated)]
    return [f"{name}:pass@1" for name in names if name != "codeforces"] + programs


def value_of(column: Column, metrics: Mapping[str, Any]) -> tuple[float | None, int | None]:
    """(value, k) of a column in an evaluation's metrics; undefined is None, never 0."""
    if column.is_score:
        return (metrics.get("pass@1") or {}).get("value"), 1
    match = _KEY.fullmatch(column.key)
    if match is not None and match["curve"]:
        curve = metrics.get(_CURVES[match["curve"]]) or {}
        k = metrics["samples"] if match["k"] == "n" else int(match["k"])
        return curve.get(str(k)), k
    if column.metric == "tokens":
        return (metrics.get("tokens") or {}).get("mean"), None
    if column.is_rating:
        rating = ((metrics.get("rating") or {}).get("elo") or {}).get(column.metric) or {}
        return rating.get("value"), None
    outcomes = metrics.get("outcomes") or {}
    total = sum(outcomes.values())
    names = ("truncated",) if column.metric == "truncated" else ("engine_error", "grader_error")
    return (sum(outcomes.get(name, 0) for name in names) / total if total else None), None
