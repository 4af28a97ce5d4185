"""Which part of a response is the program.

The rules, in order: fenced code blocks are read from top to bottom, a fence being a line that
begins with three or more backticks or tildes and closed by a line of at least as many of the same;
a block that is never closed is no block (the response was cut off). What the fence is indented by,
as in a list, the block's lines lose too, as far as all of them have it. Of the complete blocks
whose tag names an accepted language the last counts. A tag is the fence's first word, up to white
space or one of ,:;.{} and case ignored. Where no block has a tag that names any language, the last
complete block without a tag counts, in the language that the problem asks for. Blank blocks are
not looked at. Linear time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from evaluator.sandbox.languages import by_tag

# Possessive: what is behind the ticks is read once, or a line of a hundred thousand spaces and a
# tick would be tried at each of its places.
_FENCE = re.compile(r"([ \t]{0,12})(`{3,}+|~{3,}+)([^\n`]*+)$")
_WORD = re.compile(r"[^\s,:;.{}]+")


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """A program's source and the name of its language."""

    language: str
    source: str


def blocks(text: str) -> list[tuple[str, str]]:
    """(tag, content) of all complete fenced blocks, in order."""
    found: list[tuple[str, str]] = []
    opened: str | None = None
    tag = indent = ""
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        fence = _FENCE.match(line)
        if opened is None:
            if fence:
                indent, opened = fence[1], fence[2]
                word = _WORD.search(fence[3])
                tag, lines = (word[0] if word else ""), []
        elif fence and fence[2].startswith(opened) and not fence[3].strip():
            found.append((tag, "\n".join(_dedented(lines, indent)) + "\n"))
            opened = None
        else:
            lines.append(line)
    return found


def _dedented(lines: list[str], indent: str) -> list[str]:
    """The lines without what all of them have of the fence's indentation; blank ones aside."""
    while indent and not all(line.startswith(indent) for line in lines if line.strip()):
        indent = indent[:-1]
    return [line.removeprefix(indent) for line in lines]


def last_program(
    text: str, accepted: Sequence[str], default: str | None = None
) -> CodeBlock | None:
    """The response's program in one of the ``accepted`` languages, or None.

    A block without a tag is read as ``default``, where that is given. A tag such as ``cpp`` also
    stands for the accepted row of the same family (``cpp20``).
    """
    plain: CodeBlock | None = None
    tagged: CodeBlock | None = None
    other = False
    for tag, content in blocks(text):
        if not content.strip():
            continue
        if not tag:
            if default is not None:
                plain = CodeBlock(default, content)
            continue
        language = by_tag(tag)
        if language is None:
            continue
        other = True
        family = [name for name in accepted if name.startswith(language.name)]
        if language.name in accepted or family:
            chosen = language.name if language.name in accepted else family[0]
            tagged = CodeBlock(chosen, content)
    return tagged or (None if other else plain)
