"""Where a response's answer stands (PROTOCOLS §3), and whether it went round in circles (§2).

Every function takes linear time in the length of the response.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable

from evaluator.protocol import GradingPolicy, Thinking
from evaluator.records import Completion, FinishReason

LOOP_TAIL_CHARACTERS = 1000
LOOP_UNIT_CHARACTERS = 200
_PROBE_CHARACTERS = 16  # of the tail's beginning, which comes again after each unit
MAX_PHRASE_CHARACTERS = 300
MAX_LINE_CHARACTERS = 2000

KNOWN_TAGS = (("<think>", "</think>"), ("<|begin_of_thought|>", "<|end_of_thought|>"))
SEEN_OF_SERVER = 1000  # completions that tell whether an endpoint opens the thoughts itself
TAGGED_SHARE = 0.1  # of the responses; a stray mention of a tag is rarer, a thinking model is not

_BRACES = re.compile(
    r"(?P<box>\\{1,2}(?:(?:begin)?boxed|fbox)\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL
)
_PHRASE = re.compile(
    r"\banswer\b[ *_]*(?:is\b|:|=)[ *_:]*"
    r"|(?:答案|答え|정답)[ *_]*(?:是|为|為|は|은|:|：)[ *_:：]*"
    r"|\b(?:réponse|respuesta|resposta|risposta|antwort|ответ)\b[^.:\n]{0,20}?"
    r"(?:\b(?:est|es|é|è|ist)\b|:|—)[ *_:]*",
    re.IGNORECASE,
)
_FINAL = re.compile(r"\bfinal\s+$", re.IGNORECASE)
_MATHS = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|\$(?P<b>[^$\n]+)\$|\\\((?P<c>.+?)\\\)|\\\[(?P<d>.+?)\\\]", re.DOTALL
)
_SENTENCE_END = re.compile(r"\.(?:\s|$)|[。\n]|<\|")
_IS = re.compile(r"\bis\b[ *_:]*")
_BEGINS_AS_NUMBER = re.compile(r"[-+−$€£]?\s*\.?\d")
_BARE_NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?")
_BOLD_NUMBER = re.compile(r"\*\*[^\d*\n]{0,3}([-+−]?\d[\d,]*(?:\.\d+)?)[^\d*\n]{0,20}\*\*")
# A sentence that ends in the number that it states: "it's 1,000.99€", "= 4000千克".
_STATED = re.compile(
    r"(?:\b(?:is|are|was|by|to|equals|est|ist|es|soit)\b|['’]s\b|[=≈:：]|[\u4e00-\u9fff])\s*[$€£¥]?"
    r"(?P<number>[-+−]?\d[\d,]*(?:\.\d+)?(?:/\d+)?\s*%?)"
    r"(?:[$€£¥]|[a-z]{1,2}[²³]|[\u4e00-\u9fff]{1,6}"
    r"|\s+(?!(?:pi|sqrt|cbrt|log|exp|sin|cos|tan|and|or|to|times|plus|minus|over)\b)[^\W\d_]{3,}"
    r"(?:\s+[^\W\d_]{2,}){0,2})?\s*[.。]?\s*$"
)
# Between boxes that belong together: "and", "or" or a comma, perhaps after a few words.
_LINK = re.compile(
    r"[\s$}.]*(?:\\(?:quad|qquad|[,;: \])\]])|\$|\s|\\text\{)*[^.\n=:;{}]{0,40}?"
    r"(?:\band\b|\bor\b|,|、|和|或)(?:\\(?:quad|qquad|[,;: \[(])|[\s$}])*"
    r"(?:\\{1,2}(?:boxed|fbox)\s*\{)"
)
_MARKED = re.compile(r"\s*(?P<mark>\*\*|__|`+|\")(?P<inside>[^*`\"]+)(?P=mark)\s*\.?\s*", re.DOTALL)
_TAGGED = re.compile(r"<answer>(?P<inside>[^<]+)</answer>\s*$")
_HASHED = re.compile(r"(?:^|\n)####[ \t]*(?P<inside>[^\n]+)\s*$")  # GSM8K's own mark
_TEXT_PHRASE = re.compile(r"^\s*\\text\{[^{}]*\banswer(?: is|:)[^{}\w]*\}", re.IGNORECASE)
_TEXT_ALONE = re.compile(r"\s*\\text\{(?P<inside>[^{}]+)\}\s*")
# What turns "is 5" or "to 5" into something else.
_NOT_STATED = re.compile(
    r"\b(?:not|never|cannot|close|closest|near|nearly|almost|about|approximately|roughly|around|least"
    r"|most|than|except|unlike|up|either|unequal|between|over|under)\b|n['’]t\b",
    re.IGNORECASE,
)
_DIGIT = re.compile(r"\d")
_CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")
_NOT_WORDS = re.compile(
    r"\$\$[^$]*\$\$|\$[^$\n]*\$|\\\([^()]*\\\)|\\\[[^\[\]]*\\\]|\\[a-zA-Z]+(?:\s*\{[^{}]*\})?"
)
_PROSE_WORD = re.compile(r"[^\W\d_]{2,}")
_CONNECTORS = frozenset(["and", "or"])
PROSE_WORDS = 3  # fewest words outside formulas of what is read as a sentence
MAX_READINGS = 10  # a box in a sentence in a box …
MAX_SENTENCES_CHARACTERS = 2000  # read from the end of a long text


def answer_part(text: str, thinking: Thinking, reasoning: str | None = None) -> str | None:
    """Return what follows the thoughts, or None when the response is still thinking.

    ``reasoning`` is the thinking that an endpoint returned in a field of its own.
    """
    if thinking.kind == "none":
        return text
    if thinking.kind == "field":
        return None if reasoning and not text.strip() else text
    _, closed, tail = text.rpartition(thinking.close)
    if thinking.open in tail:  # opened again after the last closing tag, or never closed
        return None
    if not closed and thinking.forced and reasoning is None:
        return None
    return tail


def detect_thinking(completions: Iterable[Completion]) -> Thinking:
    """Tell from a model's completions which tags surround its thoughts.

    A pair counts where at least a tenth of the completions begin with its opening tag or hold its
    closing tag, or a tenth of those that were not cut off: where the opening tag was forced and
    nearly all were cut off while thinking, nothing else shows it. Where closing tags come without
    opening ones, the opening tag was forced.
    """
    total = whole = 0
    opens, closes_only, tagged, ended = (Counter[tuple[str, str]]() for _ in range(4))
    for completion in completions:  # once, and none is kept
        text, cut = completion.text, completion.finish_reason is FinishReason.LENGTH
        total += 1
        whole += not cut
        for pair in KNOWN_TAGS:
            begins, closes = text.lstrip().startswith(pair[0]), pair[1] in text
            opens[pair] += begins
            closes_only[pair] += closes and pair[0] not in text
            tagged[pair] += begins or closes
            ended[pair] += closes and not cut
    best, best_share = Thinking(kind="none"), TAGGED_SHARE
    for pair in KNOWN_TAGS:
        share = max(tagged[pair] / max(total, 1), ended[pair] / max(whole, 1))
        if share >= best_share:
            forced = closes_only[pair] > opens[pair]
            best = Thinking(kind="tags", open=pair[0], close=pair[1], forced=forced)
            best_share = share
    return best


def opened_by_server(completions: Iterable[Completion], thinking: Thinking) -> bool:
    """Whether an endpoint's chat template opens the thoughts, so that no response shows the tag.

    Told from the first ``SEEN_OF_SERVER`` that were not cut off: more than half of them close the
    thoughts that they did not open, and hold none that came in a field of their own.
    """
    whole = (
        each for each in completions
        if each.error is None and each.finish_reason is not FinishReason.LENGTH
    )  # fmt: skip
    seen = [
        each.reasoning is None and thinking.close in each.text and thinking.open not in each.text
        for each in itertools.islice(whole, SEEN_OF_SERVER)
    ]
    return 2 * sum(seen) > len(seen)


def is_looped(text: str) -> bool:
    """Whether the last 1,000 characters repeat a unit of at most 200 characters.

    A tail of 1,000 characters with a period of at most 200 holds the unit five times or more.
    """
    tail = text[-LOOP_TAIL_CHARACTERS:]
    if len(tail) < LOOP_TAIL_CHARACTERS:
        return False
    period = tail.find(tail[:_PROBE_CHARACTERS], 1)
    while 0 < period <= LOOP_UNIT_CHARACTERS:
        if tail[period:] == tail[:-period]:
            return True
        period = tail.find(tail[:_PROBE_CHARACTERS], period + 1)
    return False


def trimmed(text: str) -> str:
    r"""The text without white space around it, of which ``\ `` is a part."""
    end = text.rstrip()
    backslashes = len(end) - len(end.rstrip("\\"))
    if backslashes % 2 and len(end) < len(text):
        end = end[:-1].rstrip()
    return end.lstrip()


def boxes(text: str) -> list[str]:
    r"""Contents of all balanced, outermost and non-blank ``\boxed{…}`` and ``\fbox{…}``."""
    return [content for _, _, content in _box_spans(text)]


def _box_spans(text: str) -> list[tuple[int, int, str]]:
    """(start of the content, its end, the content) of the boxes."""
    stack: list[tuple[bool, int]] = []
    found: list[tuple[int, int]] = []
    for match in _BRACES.finditer(text):
        if match["box"] or match["open"]:
            stack.append((bool(match["box"]), match.end()))
        elif match["close"] and stack:
            is_box, start = stack.pop()
            if is_box:
                while found and found[-1][0] > start:  # it stands inside this one
                    found.pop()
                found.append((start, match.start()))
    return [(start, end, content) for start, end in found if (content := trimmed(text[start:end]))]


def boxed_answer(text: str, policy: GradingPolicy) -> str | None:
    """The last box, or all of them where the policy says so; None where there is none.

    Boxes that are linked by "and", "or" or a comma alone are one answer written in pieces.
    """
    if policy.several_boxes == "all":
        return ", ".join(dict.fromkeys(boxes(text))) or None
    groups = _box_groups(text)
    return groups[-1] if groups else None


def _box_groups(text: str) -> list[str]:
    """Contents of the boxes; those that are one answer written in pieces are joined."""
    spans = _box_spans(text)
    groups: list[list[str]] = []
    for index, (_, _, content) in enumerate(spans):
        if index and _LINK.fullmatch(text[spans[index - 1][1] : spans[index][0]]):
            groups[-1].append(content)
        else:
            groups.append([content])
    return [", ".join(group) for group in groups]


def final_answers(part: str) -> list[str]:
    """Everything in an answer part that is put forward as the final answer, in order.

    Those are the boxes and each number behind "final answer is"; without a box, each number behind
    "answer is"; without either, what :func:`extract_answer` finds.
    """
    boxed = _box_groups(part)
    stated = [
        reading
        for phrase in _PHRASE.finditer(part)
        if not boxed or _FINAL.search(part[max(0, phrase.start() - 12) : phrase.start()])
        if _BARE_NUMBER.fullmatch(reading := (_read_phrase(part, phrase) or "").rstrip("."))
    ]
    if boxed or stated:
        return boxed + stated
    answer = extract_answer(part, GradingPolicy())
    return [] if answer is None else [answer]


def extract_answer(part: str, policy: GradingPolicy) -> str | None:
    """Find the final answer in the answer part, or None.

    The last balanced box (or all of them, where the policy says so); then, unless ``boxed_only``,
    what follows "answer is"; then the last formula of the last line; then an answer part that is
    nothing but a number.
    """
    boxed = boxed_answer(part, policy)
    if boxed is not None:
        return boxed
    if policy.boxed_only:
        return None
    return _after_phrase(part) or _last_formula(part) or _bare_number(part)


def _after_phrase(part: str) -> str | None:
    """What follows the last "answer is" (or "answer:"): its first formula, or its sentence."""
    phrases = list(_PHRASE.finditer(part))
    return _read_phrase(part, phrases[-1]) if phrases else None


def _read_phrase(part: str, phrase: re.Match[str]) -> str | None:
    rest = part[phrase.end() : phrase.end() + MAX_PHRASE_CHARACTERS].lstrip()
    paragraph = rest.partition("\n\n")[0]
    sentence = _after_is(paragraph)
    for clause in (sentence, paragraph):
        formula = _MATHS.search(clause)
        if formula is not None and not _SENTENCE_END.search(clause[: formula.start()]):
            return _formula_text(formula)
        if _BEGINS_AS_NUMBER.match(sentence):  # "Answer: the largest $n$ is 34."
            break
    return sentence.strip(" \t*_`\"'") or None


def _after_is(text: str) -> str:
    """The first sentence of ``text``, or what follows its last "is"."""
    end = _SENTENCE_END.search(text)
    sentence = text[: end.start()] if end else text
    return _IS.split(sentence)[-1]


def _last_formula(part: str) -> str | None:
    """The last formula of the last line that is not blank."""
    last_line = part.rstrip().rpartition("\n")[2][-MAX_LINE_CHARACTERS:]
    formulas = list(_MATHS.finditer(last_line))
    return _formula_text(formulas[-1]) if formulas else None


def _formula_text(formula: re.Match[str]) -> str | None:
    return trimmed(next(group for group in formula.groups() if group is not None)) or None


def _bare_number(part: str) -> str | None:
    text = part.strip()
    return text if _BARE_NUMBER.fullmatch(text) else None


def read_answer(text: str, policy: GradingPolicy) -> str:
    r"""The answer in a text that was given as a final answer.

    That is mostly the text itself. A text with a box stands for its box; a sentence for what
    follows "answer is", for its last formula, or for the number that it ends in.
    """
    answer = text
    for _ in range(MAX_READINGS):
        inner = _read_once(answer, policy)
        if inner == answer:
            return answer
        answer = inner
    return text  # boxes in boxes in boxes: nobody wrote that


def _read_once(text: str, policy: GradingPolicy) -> str:
    marked = _MARKED.fullmatch(text) or _TAGGED.search(text) or _HASHED.search(text)
    if marked:
        return marked["inside"]
    words = _TEXT_ALONE.fullmatch(text)
    if words and _is_prose(words["inside"]):
        return words["inside"]
    text = _TEXT_PHRASE.sub("", text)
    if "boxed" in text or "fbox" in text:
        boxed = boxed_answer(text, policy)
        if boxed is not None:
            return boxed
    if not _is_prose(text):
        return text
    text = (text.partition("<|")[0].strip() or text)[-MAX_SENTENCES_CHARACTERS:]
    formulas = list(_MATHS.finditer(text))
    after = text[formulas[-1].end() :] if formulas else text
    return (
        _after_phrase(text)
        or _only_group(_BOLD_NUMBER, after)
        or _only_group(_STATED, after)
        or (_formula_text(formulas[-1]) if formulas else None)
        or text
    )


def _is_prose(text: str) -> bool:
    """Whether there is a sentence around the mathematics, not only a unit, a word or "and".

    Noise is none: at least half of a long text, its formulas aside, are letters of words.
    """
    rest = _NOT_WORDS.sub(" ", text)
    words = [word for word in _PROSE_WORD.findall(rest) if word.lower() not in _CONNECTORS]
    if len(text) > MAX_PHRASE_CHARACTERS:
        written = len("".join(rest.split()))
        if 2 * sum(map(len, words)) < written:
            return False
    lowered = {word.lower() for word in words}
    return len(words) >= PROSE_WORDS or "answer" in lowered or any(map(_CJK.search, words))


def _only_group(pattern: re.Pattern[str], text: str) -> str | None:
    """The group of the pattern's last match in the text's last line, if that is stated of it."""
    found = list(pattern.finditer(text.strip().rpartition("\n")[2]))
    if not found:
        return None
    number = next(group for group in found[-1].groups() if group is not None)
    before = _DIGIT.split(found[-1].string[: found[-1].start(found[-1].lastindex or 0)])[-1]
    return None if _NOT_STATED.search(before[-MAX_PHRASE_CHARACTERS:]) else str(number).strip()
