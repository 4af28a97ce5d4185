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
PERMUTATIONS = 128
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
    numbers = tuple(token for token in tokens if token.isdecimal())
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
    sketches: Sequence[Sketch], threshold: float, *, same_numbers: bool = False
) -> Iterator[tuple[int, int]]:
    """Pairs (earlier, later) of near copies, in order of the later one, then of the earlier.

    With ``same_numbers`` long texts too must hold the same numbers in the same order.

    Many texts are compared only where MinHash says so, which misses few pairs above the threshold;
    none that it names is taken without :func:`is_near`.
    """
    if len(sketches) <= ALL_PAIRS:
        candidates = sorted((b, a) for a, b in combinations(range(len(sketches)), 2))
    else:
        candidates = _candidates(sketches, threshold)
    for later, earlier in candidates:
        if same_numbers and sketches[earlier].numbers != sketches[later].numbers:
            continue
        if is_near(sketches[earlier], sketches[later], threshold):
            yield earlier, later


def _candidates(sketches: Sequence[Sketch], threshold: float) -> list[tuple[int, int]]:
    """(later, earlier) by locality-sensitive hashing; short texts by a lower threshold."""
    from datasketch import MinHash, MinHashLSH

    # One word changed in a short text takes three 3-grams away, so its index falls lower.
    lowest = min(threshold, 0.6)
    index = MinHashLSH(threshold=lowest, num_perm=PERMUTATIONS, weights=(0.2, 0.8))
    found: list[tuple[int, int]] = []
    for position, each in enumerate(sketches):
        values = each.shingles if len(each.shingles) else _whole(each)
        print_of = MinHash(num_perm=PERMUTATIONS, seed=SEED, hashfunc=int, scheme="affine64")
        print_of.update_batch(values)
        found += [(position, earlier) for earlier in sorted(index.query(print_of))]
        index.insert(position, print_of, check_duplication=False)
    return found


def _whole(each: Sketch) -> NDArray[np.uint64]:
    text = " ".join(each.words or ())
    return np.array([zlib.crc32(text.encode("utf-8", "replace"))], dtype=np.uint64)
