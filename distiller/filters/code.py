"""Drops thoughts that hold code blocks (PROTOCOLS §5), fenced, indented or bare."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from distiller.filters.base import Context, Filter, Reason, Trace, split

_FENCE = re.compile(r"^[ \t>]*(?:```|~~~)", re.MULTILINE)
# A line that opens a block; prose like "if n is even:" does too, so a block needs its body.
_OPENS = re.compile(
    r"\s*(?:(?:async\s+)?def\s+\w+\s*\(.*\)|class\s+\w+|for\s+.+\s+in\s+.+|while\s+.+|if\s+.+"
    r"|elif\s+.+|else|try|except\b.*|with\s+.+)\s*(?:->.*)?:\s*(?:#.*)?$"
    r"|.*\)\s*(?:const\s*)?\{\s*$|\s*(?:else|do|try|struct\s+\w+)\s*\{\s*$"
)
# Lines that are nothing but code.
_CODE = re.compile(
    r"\s*(?:import\s+[\w.]+(?:\s+as\s+\w+)?|from\s+[\w.]+\s+import\s+.+|#\s*include\s*[<\"].+"
    r"|(?:async\s+)?def\s+\w+\s*\(.*\).*:|using\s+namespace\s+\w+;|(?:int|void)\s+\w+\s*\(.*\)\s*\{?"
    r"|(?:return|break|continue|yield)\b.*;|print\s*\(.*\)|console\.log\(.*\);?"
    r"|[\w.\[\]]+\s*(?:[-+*/%|&]|//|\*\*)?=\s*(?:[\w.]+\(.*\)|\[.*\]|\{.*\}|\"[^\"]*\"|'[^']*')"
    r"(?:\s*#.*)?"
    r"|[^\\]*;\s*|\}|for\s+\w+\s+in\s+\w+\(.*\):.*|return\s+\S+|[\w.]+\([^()]*\)\s*"
    r"|[a-z_]\w*\s*(?:[-+*/%]|//)?=\s*[\w\s+*/%.-]+)$"
)
_STRONG = re.compile(
    r"\s*(?:import\s+[\w.]+(?:\s+as\s+\w+)?$|from\s+[\w.]+\s+import\s|#\s*include\s*[<\"]"
    r"|(?:async\s+)?def\s+\w+\s*\(.*\).*:|using\s+namespace|(?:int|void)\s+\w+\s*\(.*\)\s*\{"
    r"|print\s*\(|console\.log\(|return\b(?!\s+(?:to|the|and)\b)|\w+\.\w+\(.*\)$"
    r"|for\s+\w+\s+in\s+\w+\(.*\):|\w+\s*[-+*/%]=\s)"
)


class Code(Filter):
    """``code_block``: the thoughts hold a fenced block, or lines that are plainly code.

    Lines count where a block is opened and its body indented, or where ``min_lines`` lines of code
    follow each other. Inline code and formulas, displayed and indented ones too, are none.
    """

    name: ClassVar[str] = "code"
    min_lines: Annotated[int, Field(ge=2, description="of a block without a fence")] = 2

    def reasons(self, traces: Sequence[Trace], context: Context) -> list[Reason]:
        """See :meth:`Filter.reasons`."""
        return [
            "code_block" if self.has_code(split(trace, context.thinking)[0]) else None
            for trace in traces
        ]

    def has_code(self, thoughts: str) -> bool:
        """Whether a text holds a code block."""
        if _FENCE.search(thoughts):
            return True
        run = strong = 0
        before = ""
        for line in thoughts.split("\n"):
            if not line.strip():
                continue
            body = bool(_OPENS.match(before)) and _indent(line) > _indent(before)
            if _CODE.match(line) or _OPENS.match(line) or body:
                run += 1
                strong += bool(_STRONG.match(line))
            else:
                run = strong = 0
            if run >= self.min_lines and strong:
                return True
            before = line
        return False


def _indent(line: str) -> int:
    return len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
