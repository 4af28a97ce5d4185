"""Prompts that a benchmark already holds must not be taught (PROTOCOLS §5). Torch-free.

A prompt is contaminated if it is an exact or near copy of a benchmark's problem, or shares eight
words in a row with one that are not boilerplate. The near-copy rule's Jaccard index over word
3-grams is computed exactly through an inverted index: MinHash would estimate the same number, and
benchmarks are small enough to do without its misses.
"""

from __future__ import annotations

import hashlib
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

# One thing written in several ways: in Unicode, in LaTeX, in LaTeX's synonyms, in Markdown.
_RAISED = str.maketrans({"²": "^2", "³": "^3", "°": r"^\circ "})  # before NFKC, which lowers them
_SIGNS = str.maketrans({
    "−": "-", "–": "-", "×": "*", "·": "*", "÷": "/", "⁄": "/", "∗": "*", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "π": r"\pi ", "∞": r"\infty ",
})  # fmt: skip
_COMMANDS = {
    r"\times": "*", r"\cdot": "*", r"\div": "/", r"\left": "", r"\right": "", r"\leq": r"\le",
    r"\leqslant": r"\le", r"\geq": r"\ge", r"\geqslant": r"\ge", r"\neq": r"\ne",
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\degree": r"^\circ",
    r"\quad": " ", r"\qquad": " ", r"\displaystyle": " ",
}  # fmt: skip
_COMMAND = re.compile("|".join(f"{re.escape(name)}(?![a-zA-Z])" for name in _COMMANDS))
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_REWRITTEN = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"&(lt|gt|amp);", lambda match: {"lt": "<", "gt": ">", "amp": "&"}[match[1]]),
        (r"(?<![\w*])\*\*(?=\w)|(?<=[\w.:!?])\*\*(?![\w*])", ""),  # bold
        (r"(?<!\\)\\[,;:!> ()\[\]]|(?<!\\)~", " "),  # spaces; a formula's begin and end
        (r"\{,\}", ","),
        (r"([\^_])\s*\{([0-9a-z])\}", r"\1\2"),
        (r"√\s*(\d+|(?=\{))", lambda match: rf"\sqrt{{{match[1]}}}" if match[1] else r"\sqrt"),
        (r"\\(frac|sqrt)\s*(\d)", r"\\\1{\2}"),
        (r"(\\frac\{\d+\})\s*(\d)", r"\1{\2}"),
        (r"(\\[a-z]+)\s*(?=\d)", r"\1 "),
    )
]
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

    Case, white space, sentence marks and the way in which a formula is written do not count. What
    it says does: ``1+2-3`` is not ``1-2+3``, ``3.5`` not ``35``.
    """
    text = _in_one_writing(text)
    return " ".join(_AROUND_SIGN.sub(r"\1", _SENTENCE_MARK.sub(" ", text)).split())


def words(text: str) -> list[str]:
    """Words for n-grams; a formula's operators hold its parts together as one word."""
    return _WORD.findall(_OPERATOR_SPACE.sub(r"\1", _in_one_writing(text)))


def _in_one_writing(text: str) -> str:
    """``text`` in small letters, with one form of what is written in several ways."""
    text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text).translate(_RAISED))
    text = _COMMAND.sub(lambda match: _COMMANDS[match[0]], text.translate(_SIGNS).casefold())
    for pattern, by in _REWRITTEN:
        text = pattern.sub(by, text)
    return text


def find(
    prompts: Sequence[Problem], benchmarks: Mapping[str, Sequence[Problem]]
) -> list[Contamination]:
    """The contaminated prompts, in their order, each with the first rule that it breaks.

    ``benchmarks`` maps a name (with version) to its problems.
    """
    indexes = [_Index(name, problems) for name, problems in benchmarks.items() if problems]
    # Only what stands in a benchmark is counted: of many prompts' 8-grams that is next to nothing.
    counts: Counter[_Gram] = Counter()
    counted: set[bytes] = set()
    suspects: list[tuple[Problem, list[_Finding | _SharedGrams]]] = []
    for prompt in prompts:
        text, tokens = normalise(prompt.problem), words(prompt.problem)
        seen = [hit for index in indexes if (hit := index.match(text, tokens)) is not None]
        grams = {gram for index in indexes for gram in index.common_grams(tokens)}
        digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
        if digest not in counted:  # the same prompt again is no other prompt
            counted.add(digest)
            counts.update(grams)
        if seen:
            suspects.append((prompt, seen))
    limit = max(BOILERPLATE_PROMPTS, BOILERPLATE_SHARE * len(counted))
    frequent = {gram for gram, count in counts.items() if count > limit}
    found = []
    for prompt, seen in suspects:
        hits = (hit.without(frequent) if isinstance(hit, _SharedGrams) else hit for hit in seen)
        first = next((hit for hit in hits if hit is not None), None)
        if first is not None:
            found.append(Contamination(prompt.id, *first))
    return found


_Gram = tuple[str, ...]
_Finding = tuple[str, str, str, str]  # benchmark, problem id, rule, detail


@dataclass(frozen=True, slots=True)
class _SharedGrams:
    """8-grams that a prompt shares with one problem each, in the prompt's order."""

    benchmark: str
    grams: tuple[tuple[_Gram, str], ...]  # the gram, the problem's id

    def without(self, frequent: set[_Gram]) -> _Finding | None:
        """The first one that is not boilerplate."""
        for gram, problem_id in self.grams:
            if gram not in frequent:
                return self.benchmark, problem_id, "8-gram", " ".join(gram)
        return None


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

    def match(self, text: str, tokens: Sequence[str]) -> _Finding | _SharedGrams | None:
        """The first rule that the prompt breaks, or may break where a gram is no boilerplate."""
        if text in self._equal:
            return self.name, self._equal[text], "equal", ""
        if len(tokens) < GRAM_WORDS:
            return None
        shingles = set(_grams(tokens, SHINGLE_WORDS))
        shared = Counter(
            position for shingle in shingles for position in self._shingles.get(shingle, ())
        )
        for position, common in shared.most_common():
            # The index is at most the share of either text's 3-grams that are common.
            if common < JACCARD * len(shingles):
                break
            jaccard = common / (len(shingles) + self._sizes[position] - common)
            if jaccard >= JACCARD:
                return self.name, self._ids[position], "near", f"{jaccard:.3f}"
        # Standing in several problems of the benchmark, a gram is boilerplate.
        grams = tuple(
            (gram, self._ids[self._grams[gram][0]])
            for gram in _grams(tokens, GRAM_WORDS)
            if len(self._grams.get(gram, ())) == 1
        )
        return _SharedGrams(self.name, grams) if grams else None

    def common_grams(self, tokens: Sequence[str]) -> Iterator[_Gram]:
        """The prompt's 8-grams that stand in the benchmark too."""
        return (gram for gram in _grams(tokens, GRAM_WORDS) if gram in self._grams)


def _grams(tokens: Sequence[str], size: int) -> Iterator[_Gram]:
    for start in range(len(tokens) - size + 1):
        yield tuple(tokens[start : start + size])
