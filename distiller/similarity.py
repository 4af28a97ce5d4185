"""Near copies among texts: word 3-grams, MinHash to find candidates, then the exact index."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

SHINGLE_WORDS = 3
SHORT_WORDS = 100  # up to here one changed word moves the Jaccard index too much to judge by
SHORT_RATIO = 0.9
ALL_PAIRS = 64  # so many texts are compared each with each
BANDS, ROWS = 25, 5  # of MinHash values
SEED = 1
_WORD = re.compile(
    r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]|\d+|[^\W\d_\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]+"
)
_SIGN = re.compile(r"[^\w\s.,;:!?'\"`*#$\\(){}\[\]-]")
_TOKEN = re.compile(f"{_WORD.pattern}|{_SIGN.pattern}|-(?=[\\s\\d(\\\\])")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SQUARE = np.uint64(pow(0x9E3779B97F4A7C15, 2, 1 << 64))


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """What is kept of a text: its words where it is short, hashes of its 3-grams, its numbers."""

    words: tuple[str, ...] | None
    shingles: NDArray[np.uint64]  # sorted, each once
    numbers: tuple[str, ...]  # in order


def sketch(text: str) -> Sketch:
    """Reduce a text to what near copies of it share. Case, marks and white space do not count."""
    tokens = _TOKEN.findall(text.casefold())
    # zlib's checksum is the same in every process, unlike hash().
    hashes = np.fromiter(map(_checksum, tokens), np.uint64, len(tokens))
    shingles = hashes[:0]
    if len(tokens) >= SHINGLE_WORDS:
        mixed = (hashes + np.uint64(1)) * _FACTOR
        shingles = mixed[:-2] * _SQUARE + mixed[1:-1] * _FACTOR + mixed[2:]
        shingles = np.unique(shingles ^ (shingles >> np.uint64(29)))
    numbers = _numbers(tokens)
    if len(tokens) > SHORT_WORDS:
        return Sketch(None, shingles, numbers)
    return Sketch(tuple(tokens), shingles, numbers)


@lru_cache(maxsize=65536)
def _checksum(token: str) -> int:
    return zlib.crc32(token.encode("utf-8", "replace"))


def jaccard(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> float:
    """Share of common elements; 0 for two empty sets."""
    if not len(first) or not len(second):
        return 0.0
    both = np.concatenate((first, second))
    both.sort()
    common = int(np.count_nonzero(both[1:] == both[:-1]))
    return common / (len(both) - common)


def is_near(first: Sketch, second: Sketch, threshold: float) -> bool:
    """Whether two texts are near copies.

    Their 3-grams' Jaccard index is at least ``threshold``; short ones also where nine in ten words
    are the same, in order. Short texts with different numbers say different things.
    """
    if first.words is not None and second.words is not None:
        if first.numbers != second.numbers:
            return False
        if first.words == second.words:
            return True
        if _ratio(first.words, second.words) >= SHORT_RATIO:
            return True
    return jaccard(first.shingles, second.shingles) >= threshold


def _ratio(first: Sequence[str], second: Sequence[str]) -> float:
    """Twice the words in common, in order, over all words; cheap upper bounds first."""
    total = len(first) + len(second)
    if 2 * min(len(first), len(second)) < SHORT_RATIO * total:
        return 0.0
    if 2 * (Counter(first) & Counter(second)).total() < SHORT_RATIO * total:
        return 0.0
    return SequenceMatcher(None, first, second, autojunk=False).ratio()


def near_pairs(
    texts: Sequence[str], threshold: float, *, same_numbers: bool = False
) -> Iterator[tuple[int, int]]:
    """Pairs (earlier, later) of near copies, in order of the later one, then of the earlier.

    With ``same_numbers`` long texts too must hold the same numbers in the same order, and only such
    texts are compared at all. Many texts are compared only where MinHash says so, which misses few
    pairs above the threshold; none that it names is taken without :func:`is_near`. Memory: half a
    kilobyte a text.
    """
    groups = _by_numbers(texts) if same_numbers else [range(len(texts))]
    candidates = sorted(pair for group in groups for pair in _worth_comparing(texts, group))
    known = _Sketches(texts)
    for later, earlier in candidates:
        one, other = known[earlier], known[later]
        if same_numbers and one.numbers != other.numbers:
            continue
        if is_near(one, other, threshold):
            yield earlier, later


def _by_numbers(texts: Sequence[str]) -> list[list[int]]:
    """Places of texts that may hold the same numbers in the same order; two and more a group."""
    groups: dict[int, list[int]] = {}
    for at, text in enumerate(texts):
        groups.setdefault(hash(_numbers(_TOKEN.findall(text.casefold()))), []).append(at)
    return [group for group in groups.values() if len(group) > 1]


def _numbers(tokens: Sequence[str]) -> tuple[str, ...]:
    return tuple(token for token in tokens if token.isdecimal())


def _worth_comparing(texts: Sequence[str], group: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(later, earlier) of a group: all of a small one, MinHash's of a large one."""
    if len(group) <= ALL_PAIRS:
        return ((later, earlier) for earlier, later in combinations(group, 2))
    found = _candidates([texts[at] for at in group])
    return ((group[later], group[earlier]) for later, earlier in found)


class _Sketches:
    """Sketches of texts, made when asked for; the last few hundred are kept."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._made = lru_cache(maxsize=512)(lambda at: sketch(texts[at]))

    def __getitem__(self, at: int) -> Sketch:
        return self._made(at)


def _candidates(texts: Sequence[str]) -> list[tuple[int, int]]:
    """(later, earlier) pairs that share a band of MinHash values, by locality-sensitive hashing.

    Five values in a row are equal in one of 25 bands: that finds 99.99 % of the pairs with a
    Jaccard index of 0.8 and 87 % of those with 0.6, which a word changed in a short text may have.
    Of texts that share a band each is compared with the first of them and with the one before it.
    """
    values = np.stack([_min_hash(text) for text in texts])  # (texts, bands * rows)
    found: set[tuple[int, int]] = set()
    for band in range(BANDS):
        columns = values[:, band * ROWS : (band + 1) * ROWS].astype(np.uint64)
        keys = columns[:, 0]
        for column in range(1, ROWS):
            keys = keys * _FACTOR + columns[:, column]
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[0]] + np.uint64(1)))
        first = np.repeat(order[starts], np.diff(starts, append=len(order)))
        for at in np.flatnonzero(first != order):
            found.add((int(order[at]), int(first[at])))
            found.add((int(order[at]), int(order[at - 1])))
    return sorted(found)


def _min_hash(text: str) -> NDArray[np.uint32]:
    """The text's MinHash values, (bands * rows,); the same in every process."""
    from datasketch import MinHash

    shingles = sketch(text).shingles
    if not len(shingles):  # fewer than three words
        shingles = np.array([_checksum(" ".join(text.split()))], dtype=np.uint64)
    made = MinHash(num_perm=BANDS * ROWS, seed=SEED, hashfunc=int, scheme="affine64")
    made.update_batch(shingles)
    low: NDArray[np.uint32] = (made.hashvalues & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return low
