"""Drops thoughts that mix languages (PROTOCOLS §5), told apart by their Unicode scripts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, ClassVar

from pydantic import Field

from distiller.filters.base import Context, Filter, Reason, Trace, split_thoughts

# Code and mathematics are no language: fenced and inline code, formulas, LaTeX commands.
_NOT_LANGUAGE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\(.*?\\\)|\\\[.*?\\\]|\\[A-Za-z]+",
    re.DOTALL,
)
_LETTERS = re.compile(r"[^\W\d_]+")
# Scripts without spaces between words: each character counts as a word.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


class MixedLanguage(Filter):
    """``mixed_language``: too few words of the thoughts are in the target script.

    A single letter is no word: it is a variable (``x``, ``θ``).
    """

    name: ClassVar[str] = "mixed_language"
    script: Annotated[
        str, Field(description="as Unicode names its letters: LATIN, CJK, CYRILLIC …")
    ] = "LATIN"
    min_share: Annotated[float, Field(ge=0, le=1, description="of the words")] = 0.98

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        shares = [self.share(split_thoughts(trace.text, context.thinking)[0]) for trace in traces]
        return [
            "mixed_language" if share is not None and share < self.min_share else None
            for share in shares
        ]

    def share(self, thoughts: str) -> float | None:
        """Share of words in the target script; None where there are no words."""
        target = others = 0
        for run in _LETTERS.findall(_NOT_LANGUAGE.sub(" ", thoughts)):
            for script, words in _words(run):
                if script == self.script.upper():
                    target += words
                else:
                    others += words
        return target / (target + others) if target + others else None


def _words(run: str) -> list[tuple[str, int]]:
    """(script, words) of each stretch of one script in a run of letters."""
    stretches: list[tuple[str, int]] = []  # script, letters
    for letter in run:
        script = _script(letter)
        if stretches and stretches[-1][0] == script:
            stretches[-1] = (script, stretches[-1][1] + 1)
        else:
            stretches.append((script, 1))
    return [
        (script, letters if script in _UNSPACED else int(letters > 1))
        for script, letters in stretches
    ]


@lru_cache(maxsize=65536)
def _script(letter: str) -> str:
    """First word of the letter's Unicode name: LATIN, CJK, CYRILLIC …"""
    return unicodedata.name(letter, "UNNAMED").split()[0].split("-")[0]
