"""Answers in words: numbers ("two thirds", "minus five") and phrases that say one thing."""

from __future__ import annotations

import re
from functools import lru_cache

MAX_CHARACTERS = 100

_ONES = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90,
}  # fmt: skip
_GROUPS = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {
    "half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
    "eighth": 8, "ninth": 9, "tenth": 10,
}  # fmt: skip
_PLURAL_PARTS = {"halves": 2} | {f"{name}s": value for name, value in _PARTS.items()}

_NEGATIVE = re.compile(r"(?:minus|negative) (?=[\d.\\])", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:a|an|the) (?!and\b)(?=[a-z]{3})", re.IGNORECASE)
_NO_SOLUTION = re.compile(
    r"(?:there (?:is|are) )?no (?P<kind>real |integer |rational |positive |positive integer )?"
    r"solutions?(?: exists?)?|(?:the )?empty set",
    re.IGNORECASE,
)
_INFINITELY_MANY = re.compile(
    r"(?:there are )?(?:infinitely many|an infinite number of|infinite)(?P<what> solutions)?",
    re.IGNORECASE,
)
_ALL_REALS = re.compile(
    r"(?:the set of )?(?:all|any) (?:the )?real(?:s|(?: numbers?))|the real numbers|the reals",
    re.IGNORECASE,
)
_NO_VALUE = re.compile(r"(?i:dne|(?:the limit )?does not exist)")


@lru_cache(maxsize=4096)
def plain(text: str) -> str:
    r"""A number in digits, a known phrase in one form; any other text as it is.

    ``minus twenty-one`` is ``-21``; ``There are no solutions`` is ``\emptyset``. The whole text
    has to be read: ``two of them`` stays as it is.
    """
    if len(text) > MAX_CHARACTERS or not text[:1].isalpha():
        return text
    negative = _NEGATIVE.match(text)
    if negative:
        return "-" + text[negative.end() :]
    return _number(text.lower()) or _phrase(text)


def _phrase(text: str) -> str:
    none = _NO_SOLUTION.fullmatch(text)
    if none:
        return f"no {none['kind'].lower()}solution" if none["kind"] else r"\emptyset"
    many = _INFINITELY_MANY.fullmatch(text)
    if many and (many["what"] or text.lower().endswith("many")):
        return "infinitely many"
    if _ALL_REALS.fullmatch(text):
        return r"\mathbb{R}"
    if _NO_VALUE.fullmatch(text):
        return "does not exist"
    return _ARTICLE.sub("", text, count=1).removeprefix("point ")


def _number(text: str) -> str | None:
    """A whole number, a fraction or a mixed number, as digits; None for all else."""
    words = text.replace("-", " ").split()
    sign = ""
    if words[0] in ("minus", "negative"):
        sign, words = "-", words[1:]
    if not words:
        return None
    whole = _whole(words)
    if whole is not None:
        return f"{sign}{whole}"
    fraction = _fraction(words)
    if fraction is not None:
        return f"{sign}{fraction}"
    if "and" in words:
        at = len(words) - 1 - words[::-1].index("and")
        whole, fraction = _whole(words[:at]), _fraction(words[at + 1 :])
        if whole is not None and fraction is not None:
            return f"{sign}{whole} {fraction}"
    return None


def _fraction(words: list[str]) -> str | None:
    """``two thirds`` as ``2/3``; one part is singular, several are plural."""
    if words == ["half"]:
        return "1/2"
    if len(words) != 2:
        return None
    count, part = words
    if count in ("a", "one") and part in _PARTS:
        return f"1/{_PARTS[part]}"
    if _ONES.get(count, 0) > 1 and part in _PLURAL_PARTS:
        return f"{_ONES[count]}/{_PLURAL_PARTS[part]}"
    return None


def _whole(words: list[str]) -> int | None:
    """``two hundred and fifty`` as 250; None unless every word has its place."""
    total, below = 0, 10**15
    group: list[str] = []
    for word in words:
        if word not in _GROUPS:
            group.append(word)
            continue
        count = _below_thousand(group)
        if not count or _GROUPS[word] >= below:
            return None
        total, below, group = total + count * _GROUPS[word], _GROUPS[word], []
    if not group:
        return total or None
    if total and group[0] == "and":
        group = group[1:]
    rest = _below_thousand(group)
    if rest is None or (total and not rest):
        return None
    return total + rest


def _below_thousand(words: list[str]) -> int | None:
    """A number below 1,000: ``one hundred and five``, ``twenty one``."""
    if len(words) > 1 and words[1] == "hundred":
        hundreds = 1 if words[0] == "a" else _ONES.get(words[0], 0)
        rest = words[3:] if words[2:3] == ["and"] else words[2:]
        below = _below_hundred(rest) if rest else 0
        if not 0 < hundreds < 10 or below is None or (rest and not below):
            return None
        return 100 * hundreds + below
    return _below_hundred(words)


def _below_hundred(words: list[str]) -> int | None:
    if len(words) == 1:
        return _ONES.get(words[0], _TENS.get(words[0]))
    if len(words) == 2 and words[0] in _TENS and 0 < _ONES.get(words[1], 0) < 10:
        return _TENS[words[0]] + _ONES[words[1]]
    return None
