"""Drops thoughts that mix languages (PROTOCOLS §5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from distiller.filters import languages
from distiller.filters.base import Context, Filter, Reason, Trace, split


class MixedLanguage(Filter):
    """``mixed_language``: too much of the thoughts is not in the target language.

    Words are told apart by their Unicode scripts, and among languages in Latin letters by their
    function words. Mathematics, code, LaTeX, names and single letters belong to no language. A
    short quotation is tolerated, in so far as its share is; a long foreign passage is not.
    """

    name: ClassVar[str] = "mixed_language"
    language: Annotated[
        str,
        Field(description='"auto": the problem\'s own; an ISO code (en, zh …) or a Unicode script'),
    ] = languages.AUTO
    min_share: Annotated[float, Field(ge=0, le=1, description="of the words")] = 0.95
    tolerated_words: Annotated[
        int, Field(ge=0, description="foreign words that are no matter in a text five times longer")
    ] = 3
    max_foreign_words: Annotated[
        int, Field(ge=1, description="longest foreign passage, whatever its share")
    ] = 20

    @field_validator("language")
    @classmethod
    def _known(cls, value: str) -> str:
        if not languages.is_known(value):
            known = ", ".join(languages.codes())
            raise ValueError(f"must be auto, one of {known}, or a script such as CYRILLIC")
        return value

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        return [self._reason(trace, context) for trace in traces]

    def _reason(self, trace: Trace, context: Context) -> Reason:
        text = trace.text if context.thinking.kind == "none" else split(trace, context.thinking)[0]
        mix = languages.measure(text, self.language, problem=trace.problem.problem)
        if not mix.foreign:
            return None
        share = mix.target / (mix.target + mix.foreign)
        few = mix.foreign <= self.tolerated_words and mix.target >= 4 * mix.foreign
        if mix.longest_foreign > self.max_foreign_words:
            return "mixed_language"
        return "mixed_language" if share < self.min_share and not few else None
