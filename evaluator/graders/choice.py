r"""Multiple choice: the letter in ``\boxed{}``, or of the last "Answer: X" form (PROTOCOLS §3)."""

from __future__ import annotations

import re

from evaluator.graders.base import Grader
from evaluator.graders.extraction import boxed_answer
from evaluator.protocol import GradingPolicy

LETTERS = "ABCDEFGHIJ"
MAX_TAIL_CHARACTERS = 4000  # where a stated answer is looked for

_WRAPPED = re.compile(
    r"^(?:\\(?:text|textbf|mathrm|mathbf|boxed|rm|bf)\s*\{|[\s$*_({\[`\"'])*"
    r"(?:(?:option|choice|answer)\b[\s:*]*(?:\\?[({\[]\s*)?)?(?P<letter>[A-Ja-j])"
    r"(?![\w'’])(?P<rest>.*)$",
    re.DOTALL | re.IGNORECASE,
)
_MARK = r"[\s*_$:\-]*(?:\\(?:text|textbf|mathrm|mathbf|boxed)\s*\{\s*)*[(\[{*\"'`]*"
_STATED = re.compile(
    r"(?:\b(?:answer|choice|option|réponse|respuesta|resposta|risposta|antwort|ответ)\b"
    r"(?:\s+(?:correct[ae]|correta|corretta|final|exact[ae]))?"
    r"(?:[\s*_]*(?:is|est|es|é|è|ist|would be|must be|should be|:|=|—)|[\s*_]+(?=[(*]*[A-J]\b))"
    r"(?:\s+(?:option|choice|la|el|the))?"
    r"|(?:答案|答え|选择|選擇|选|정답)[\s*_]*(?:是|为|為|は|은|:|：|选项)?"
    r"|(?i:\b(?:it['’]s|it is|choose|pick|select)\b)(?:\s+(?:option|choice|answer))?)"
    + _MARK
    + r"(?P<letter>[A-J])(?![\w'’])",
    re.IGNORECASE,
)
# What makes a letter one of several: "B or C", "A, B". On another line only after such a sign, and
# never the word "I".
_ANOTHER = re.compile(
    r"[ \t)}\]*$]*(?:(?:[,;/&+，；、]|\\text\s*\{|\\[,; ]|and/or\b|and\b|or\b|[和或及])\s*)*"
    r"[ \t(}{[$*]*(?:\\[a-z]+\{)?[ \t]*(?!I\s+[a-z])[A-J](?![\w'’])"
)
_LONE = re.compile(r"^[\s*_$({\[\"'`]*(?P<letter>[A-J])[\s*_$)}\]\"'`]*(?:[.:。、,，)]|$)")


class ChoiceGrader(Grader):
    """Compares letters. The letter stands for the option in the problem's own order."""

    name = "choice"
    version = 2

    def extract(self, part: str, policy: GradingPolicy) -> str | None:
        """The letter in the last box, else of the last stated answer, else at the beginning.

        A box without a letter is an answer all the same, one that equals no option.
        """
        boxed = boxed_answer(part, policy)
        if boxed is not None:
            return _letter(boxed) or boxed
        if policy.boxed_only:
            return None
        tail = part[-MAX_TAIL_CHARACTERS:]
        stated = [match for match in _STATED.finditer(tail) if match["letter"].isupper()]
        if stated:
            another = _ANOTHER.match(tail, stated[-1].end())
            return (
                tail[stated[-1].start("letter") : another.end()]
                if another
                else stated[-1]["letter"]
            )
        last_line = part.strip().rpartition("\n")[2]
        alone = _LONE.match(part) or _LONE.match(last_line)
        if alone:
            another = _ANOTHER.match(alone.string, alone.end("letter"))
            return (
                alone.string[alone.start("letter") : another.end()] if another else alone["letter"]
            )
        return part.strip().upper() if part.strip().upper() in LETTERS and part.strip() else None

    def read(self, prediction: str, policy: GradingPolicy) -> str:
        r"""The letter of a final answer such as ``(C)``, ``C. 4`` or ``\text{C}``."""
        return _letter(prediction) or self.extract(prediction, policy) or prediction

    def unshuffled(self, answer: str, options: tuple[int, ...]) -> str:
        """The letter that the option shown as ``answer`` has in the problem's own order."""
        letter = _letter(answer)
        if letter is None or not options:
            return letter or answer
        place = LETTERS.index(letter)
        return LETTERS[options[place]] if place < len(options) else answer

    def equal_fast(self, first: str, second: str, policy: GradingPolicy) -> bool:
        """Whether both are the same letter."""
        letter = _letter(first)
        return letter is not None and letter == _letter(second)


def _letter(answer: str) -> str | None:
    r"""The letter of ``C``, ``(c)``, ``\textbf{(C)}``, ``C. Cecile``; None for any other text."""
    match = _WRAPPED.match(answer.strip())
    if match is None:
        return None
    letter, rest = match["letter"], match["rest"].strip()
    if rest and letter.islower() and rest[0] not in ")}].:":
        return None  # "a dog"
    if rest and rest[0].isalnum() and not rest[0].isupper():
        return None  # "A dog": an article, not a letter
    if rest and (rest[0] in "+-*/^=<>,&" or _ANOTHER.match(match["rest"])):
        return None
    return str(letter).upper()
