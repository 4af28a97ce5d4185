"""Which words of a text are in which language: by script, and by function words within Latin."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

AUTO = "auto"

# Code and mathematics are no language: fenced and inline code, formulas, LaTeX commands and the
# names of environments.
_NOT_LANGUAGE = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\(.*?\\\)|\\\[.*?\\\]"
    r"|\\begin\{(?P<name>[a-zA-Z]+\*?)\}.*?\\end\{(?P=name)\}|\\(?:text|mathrm|operatorname)\{[^{}]*\}"
    r"|\\[A-Za-z]+|https?://\S+|(?m:^(?: {4}|\t).*[=(){};].*$)",
    re.DOTALL,
)
_LETTERS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_SENTENCE_END = re.compile(r"(?<=[.!?;:])\s+|(?<=[。！？；：])|\n+")
# Latin words that stand in the mathematics of every language.
_TERMS_TEXT = """
    sin cos tan cot sec csc arcsin arccos arctan log ln exp lim max min sup inf gcd lcm mod det dim
    ker deg arg sgn cm mm km kg mg ml hz rad iff qed rhs lhs wlog true false none null
"""
_TERMS = frozenset(_TERMS_TEXT.split())

# One writing may use several scripts; Japanese and Korean texts hold Chinese characters too.
_SCRIPTS: dict[str, frozenset[str]] = {
    code: frozenset(scripts.split())
    for code, scripts in {
        "zh": "CJK BOPOMOFO", "ja": "CJK HIRAGANA KATAKANA", "ko": "HANGUL CJK", "ru": "CYRILLIC",
        "uk": "CYRILLIC", "bg": "CYRILLIC", "el": "GREEK", "ar": "ARABIC", "fa": "ARABIC",
        "he": "HEBREW", "hi": "DEVANAGARI", "bn": "BENGALI", "ta": "TAMIL", "te": "TELUGU",
        "th": "THAI", "ka": "GEORGIAN", "hy": "ARMENIAN",
    }.items()
}  # fmt: skip
_WRITINGS = frozenset().union(*_SCRIPTS.values()) | {
    "LATIN", "GUJARATI", "GURMUKHI", "KANNADA", "MALAYALAM", "SINHALA", "LAO", "KHMER", "MYANMAR",
    "TIBETAN", "ETHIOPIC", "MONGOLIAN",
}  # fmt: skip
# Scripts without spaces between words: about so many characters make a word.
_UNSPACED = {"CJK": 1.5, "HIRAGANA": 2.5, "KATAKANA": 4.0, "HANGUL": 2.5, "THAI": 4.0, "LAO": 4.0,
             "KHMER": 4.0, "MYANMAR": 4.0, "TIBETAN": 4.0}  # fmt: skip

# The commonest function words that hardly another of these languages has.
_FUNCTION_WORDS: dict[str, frozenset[str]] = {
    code: frozenset(words.split())
    for code, words in {
        "en": """the of and to is that we it for with this are be as on by have so not can from then
            which but at let since if where has must will what there all these now how thus hence an
            because both each when also only just first need get would should could let's i you""",
        "fr": """le la les des une et est que nous dans pour avec ce cette sont pas sur par donc
            alors qui mais où ou au aux du il elle on si car ainsi comme peut avons deux
            maintenant""",
        "de": """der die das und ist wir nicht ein eine mit für auf von zu dem den des es sich auch
            als bei oder wenn dann also wie sind hat haben wird daher durch jetzt nach aus zum
            zur""",
        "es": """el los las una y es que de en para con por como se entonces pero si más este esta
            son del al lo ahora donde tenemos cada hay ser muy también porque dos nos""",
        "it": """il gli le una è che di per con come si non sono della dello nel quindi allora ma se
            anche questo questa abbiamo dove più perché ora del dei da due""",
        "pt": """o os as uma é que de em para com por como se então mas não mais este esta são do da
            dos das ao agora onde temos cada há ser muito também porque dois nós""",
        "nl": """de het een en is dat we niet voor met van op zijn als dan ook maar bij naar deze
            dit wordt hebben nu dus uit door er om wij kan te twee""",
        "pl": """i w na z do nie się jest to że jak dla ale tak więc oraz przez czy są mamy teraz od
            po""",
        "tr": """ve bir bu için ile da de olarak daha çok ise gibi ne her şimdi o halde değil
            var""",
        "vi": """là và của có các cho được trong một không với này ta khi thì nên từ vậy số để""",
        "id": """dan yang di dari ini itu dengan untuk adalah kita pada tidak maka jika akan atau ke
            sehingga karena dapat""",
    }.items()
}
_LANGUAGES_OF: dict[str, tuple[str, ...]] = {
    word: tuple(code for code, known in _FUNCTION_WORDS.items() if word in known)
    for word in frozenset().union(*_FUNCTION_WORDS.values())
}
MIN_EVIDENCE = 2  # function words by which a sentence is known to be in another language


@dataclass(frozen=True, slots=True)
class Mix:
    """Words in the target language, words in others, and the longest passage of others."""

    target: float
    foreign: float
    longest_foreign: float


def codes() -> list[str]:
    """Languages that can be named."""
    return sorted({*_SCRIPTS, *_FUNCTION_WORDS})


def is_known(language: str) -> bool:
    """Whether ``language`` is a code, a script's name, or :data:`AUTO`."""
    return language == AUTO or language in codes() or language.upper() in _WRITINGS


def measure(text: str, language: str, *, problem: str = "") -> Mix:
    """Count the words of ``text`` that are, and that are not, in ``language``.

    :data:`AUTO` is the problem's language; where that has no words, the Latin script's.
    """
    pieces = list(_pieces(text))
    scripts, latin = _resolve(language, problem, pieces)
    target = foreign = passage = longest = 0.0
    for words, tongue in pieces:
        for script, count, counts_as_foreign in words:
            if script in scripts and (script != "LATIN" or tongue in (None, latin)):
                target += count
                passage = 0.0
            elif "LATIN" in scripts or script != "LATIN" or counts_as_foreign:
                foreign += count
                passage += count
                longest = max(longest, passage)
    return Mix(target, foreign, longest)


_Word = tuple[str, float, bool]  # script, words, whether it is foreign where Latin is
_Words = list[_Word]


def _pieces(text: str) -> Iterator[tuple[_Words, str | None]]:
    """The words of each sentence, and the Latin-script language that it is plainly in."""
    # An accent that is a character of its own would end the word that it stands in.
    text = unicodedata.normalize("NFC", text)
    for sentence in _SENTENCE_END.split(_NOT_LANGUAGE.sub(" ", text)):
        runs = [_known(run) for run in _LETTERS.findall(sentence)]
        if runs:
            words = [word for words, _ in runs for word in words]
            yield words, _latin_language([codes for _, codes in runs if codes])


def _latin_language(function_words: list[tuple[str, ...]]) -> str | None:
    """The language whose function words stand out; None where none does.

    Of each function word the languages that have it are given.
    """
    hits: dict[str, int] = {}
    for codes in function_words:
        for code in codes:
            hits[code] = hits.get(code, 0) + 1
    if not hits:
        return None
    best = max(hits, key=lambda code: hits[code])
    second = max((count for code, count in hits.items() if code != best), default=0)
    return best if hits[best] >= MIN_EVIDENCE and hits[best] > second else None


def _resolve(
    language: str, problem: str, pieces: list[tuple[_Words, str | None]]
) -> tuple[frozenset[str], str | None]:
    """(scripts of the target, its language if it is written in Latin letters)."""
    if language == AUTO:
        own = list(_pieces(problem))
        language = _main_language(own) or _main_latin(pieces) or "LATIN"
    if language in _SCRIPTS:
        return _SCRIPTS[language], None
    if language in _FUNCTION_WORDS:
        return frozenset(["LATIN"]), language
    scripts = frozenset([language.upper()])
    return scripts, (_main_latin(pieces) if scripts == {"LATIN"} else None)


def _main_language(pieces: list[tuple[_Words, str | None]]) -> str | None:
    counts: dict[str, float] = {}
    for words, _ in pieces:
        for script, count, _ in words:
            counts[script] = counts.get(script, 0.0) + count
    if not counts:
        return None
    if counts.get("HIRAGANA"):
        return "ja"
    others = {script: count for script, count in counts.items() if script != "LATIN"}
    main = max(others, key=lambda script: others[script], default="LATIN")
    # A text in another script holds Latin letters (names of points, terms) more than the reverse.
    if others and others[main] >= counts.get("LATIN", 0.0) / 2:
        return next((code for code, scripts in _SCRIPTS.items() if main in scripts), main)
    return _main_latin(pieces)


def _main_latin(pieces: list[tuple[_Words, str | None]]) -> str | None:
    """The Latin-script language of most sentences' words."""
    counts: dict[str, int] = {}
    for words, tongue in pieces:
        if tongue is not None:
            counts[tongue] = counts.get(tongue, 0) + len(words)
    return max(counts, key=lambda code: counts[code], default=None)


@lru_cache(maxsize=65536)  # texts are made of few different words
def _known(run: str) -> tuple[tuple[_Word, ...], tuple[str, ...]]:
    """A run of letters as words, and the languages of which it is a function word."""
    return _words(run), _LANGUAGES_OF.get(run.lower(), ())


def _words(run: str) -> tuple[_Word, ...]:
    """Each stretch of one script in a run of letters, as words.

    A single Latin letter is a variable, a short Greek run a product of them.
    """
    stretches: list[tuple[str, int]] = []  # script, letters
    for letter in run:
        if letter in "'’":
            continue
        script = _script(letter)
        if stretches and stretches[-1][0] == script:
            stretches[-1] = (script, stretches[-1][1] + 1)
        else:
            stretches.append((script, 1))
    words: list[_Word] = []
    for script, letters in stretches:
        if script in _UNSPACED:
            words.append((script, letters / _UNSPACED[script], True))
        elif script in _WRITINGS and letters > (3 if script == "GREEK" else 1):
            words.append((script, 1.0, script != "LATIN" or _is_foreign_latin(run)))
    return tuple(words)


def _is_foreign_latin(run: str) -> bool:
    """Whether a Latin word is a foreign one in another script: no name, term or row of points."""
    return run.islower() and len(run) > 2 and run not in _TERMS


@lru_cache(maxsize=65536)
def _script(letter: str) -> str:
    """First word of the letter's Unicode name: LATIN, CJK, CYRILLIC …"""
    script = unicodedata.name(letter, "UNNAMED").split()[0].split("-")[0]
    return "LATIN" if script == "FULLWIDTH" else script
