"""Drops responses that are shorter or longer than wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from distiller.filters.base import Context, Filter, Reason, Trace, split


class LengthBounds(Filter):
    """``too_short`` and ``too_long``; what fits the student's context is the corpus' own check."""

    name: ClassVar[str] = "length_bounds"
    unit: Annotated[
        Literal["characters", "words"], Field(description="words: parts between white space")
    ] = "characters"
    of: Annotated[Literal["response", "thoughts"], Field(description="what is measured")] = (
        "response"
    )
    min: Annotated[int, Field(ge=0, description="in units; shorter is dropped")] = 0
    max: Annotated[int | None, Field(ge=0, description="in units; None: any length")] = None

    @model_validator(mode="after")
    def _in_order(self) -> LengthBounds:
        if self.max is not None and self.max < self.min:
            raise ValueError("max must not be smaller than min")
        return self

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        return [self._reason(trace, context) for trace in traces]

    def _reason(self, trace: Trace, context: Context) -> Reason:
        text = trace.text if self.of == "response" else split(trace, context.thinking)[0]
        length = len(text) if self.unit == "characters" else len(text.split())
        if length < self.min:
            return "too_short"
        return "too_long" if self.max is not None and length > self.max else None
