"""Prompts that a benchmark already holds must not be taught (PROTOCOLS §5). Torch-free.

A prompt is contaminated if it is an exact or near copy of a benchmark's problem, or shares eight
words in a row with one that are not boilerplate. The near-copy rule's Jaccard index over word
3-grams is computed exactly through an inverted index: MinHash would estimate the same number, and
benchmarks are small enough to do without its misses.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluator.records import Problem

JACCARD = 0.8
SHINGLE_WORDS = 3
GRAM_WORDS = 8  # Open R1's rule; shorter problems must be equal
BOILERPLATE_SHARE = 0.001  # of the prompts
# In a small prompt set one prompt in a thousand is less than one: so many different prompts must
# share a gram before it counts as boilerplate there.
BOILERPLATE_PROMPTS = 3

_SIGNS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "÷": "/", "⁄": "/", "∗": "*"})
_COMMANDS = {r"\times": "*", r"\cdot": "*", r"\div": "/", r"\left": "", r"\right": ""}
_COMMAND = re.compile("|".join(f"{re.escape(name)}(?![a-zA-Z])" for name in _COMMANDS))
_OPERATOR_SPACE = re.compile(r"(?<=[\w)\]}])[^\S\n]*([-+*/^=<>])[^\S\n]*(?=[\w(\[{\\])")
_WORD = re.compile(r"[\w%](?:[\w%]|[-+*/^=<>.!](?=[\w]))*")
_AROUND_SIGN = re.compile(r"\s*([^\w\s])\s*")
_SENTENCE_MARK = re.compile(r"[,;:?\"'“”‘’$]|\.(?!\d)|(?<!\w)!|(?<=[^\W\d_]{2})!")


@dataclass(frozen=True, slots=True)
class Contamination:
    """Why one prompt is contaminated: the first benchmark problem that it is too like."""

    problem_id: str
    benchmark: str
    benchmark_problem_id: str
    rule: str  # "equal", "near" or "8-gram"
    detail: str  # the Jaccard index, or the words shared

    def to_json(self) -> dict[str, Any]:
        """The row of contaminated.json."""
        return asdict(self)


def normalise(text: str) -> str:
    """``text`` as the rule of equality compares it.

    Case, white space and sentence marks do not count. Operators, brackets, digits and decimal
    points do: ``1+2-3`` is not ``1-2+3``.
    """
    text = _COMMAND.sub(lambda match: _COMMANDS[match[0]], _fold(text))
    return " ".join(_AROUND_SIGN.sub(r"\1", _SENTENCE_MARK.sub(" ", text)).split())


def words(text: str) -> list[str]:
    """Words for n-grams; a formula's operators hold its parts together as one word."""
    text = _COMMAND.sub(lambda match: _COMMANDS[match[0]], _fold(text))
    return _WORD.findall(_OPERATOR_SPACE.sub(r"\1", text))


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).translate(_SIGNS).casefold()


def find(
    prompts: Sequence[Problem], benchmarks: Mapping[str, Sequence[Problem]]
) -> list[Contamination]:
    """The contaminated prompts, in their order, each with the first rule that it breaks.

    ``benchmarks`` maps a name (with version) to its problems.
    """
    indexes = [_Index(name, problems) for name, problems in benchmarks.items() if problems]
    frequent = _frequent_grams(prompts)
    found = []
    for prompt in prompts:
        text, tokens = normalise(prompt.problem), words(prompt.problem)
        for index in indexes:
            hit = index.match(text, tokens, frequent)
            if hit is not None:
                found.append(Contamination(prompt.id, index.name, *hit))
                break
    return found


class _Index:
    """One benchmark's problems, by normal form, by 3-gram and by 8-gram."""

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        self.name = name
        self._equal: dict[str, str] = {}
        self._ids = [problem.id for problem in problems]
        self._sizes: list[int] = []  # 3-grams of each problem
        self._shingles: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._grams: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for position, problem in enumerate(problems):
            tokens = words(problem.problem)
            self._equal.setdefault(normalise(problem.problem), problem.id)
            shingles = set(_grams(tokens, SHINGLE_WORDS)) if len(tokens) >= GRAM_WORDS else set()
            self._sizes.append(len(shingles))
            for shingle in shingles:
                self._shingles[shingle].append(position)
            for gram in set(_grams(tokens, GRAM_WORDS)):
                self._grams[gram].append(position)

    def match(
        self, text: str, tokens: Sequence[str], frequent: set[tuple[str, ...]]
    ) -> tuple[str, str, str] | None:
        """(problem id, rule, detail) of the first rule that the prompt breaks."""
        if text in self._equal:
            return self._equal[text], "equal", ""
        if len(tokens) < GRAM_WORDS:
            return None
        shingles = set(_grams(tokens, SHINGLE_WORDS))
        shared = Counter(
            position for shingle in shingles for position in self._shingles.get(shingle, ())
        )
        for position, common in shared.most_common():
            jaccard = common / (len(shingles) + self._sizes[position] - common)
            if jaccard >= JACCARD:
                return self._ids[position], "near", f"{jaccard:.3f}"
        for gram in _grams(tokens, GRAM_WORDS):
            holders = self._grams.get(gram, ())
            # Standing in several problems of the benchmark, or in many prompts: boilerplate.
            if len(holders) == 1 and gram not in frequent:
                return self._ids[holders[0]], "8-gram", " ".join(gram)
        return None


def _grams(tokens: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    for start in range(len(tokens) - size + 1):
        yield tuple(tokens[start : start + size])


def _frequent_grams(prompts: Sequence[Problem]) -> set[tuple[str, ...]]:
    """8-grams that stand in too many different prompts to mean anything."""
    different = {normalise(prompt.problem): prompt for prompt in prompts}
    counts: Counter[tuple[str, ...]] = Counter()
    for prompt in different.values():
        counts.update(set(_grams(words(prompt.problem), GRAM_WORDS)))
    limit = max(BOILERPLATE_PROMPTS, BOILERPLATE_SHARE * len(different))
    return {gram for gram, count in counts.items() if count > limit}
