"""One spelling for answers that are written differently, and exact numbers. No evaluation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from evaluator.graders.extraction import trimmed
from evaluator.graders.units import SEVERAL_UNITS, one_unit, split_unit

MAX_DIGITS = 400  # of a number that is compared exactly; longer ones are compared as text

_CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ",
        "⋅": r"\cdot ", "÷": "/", "∕": "/", "≤": r"\leq ", "≥": r"\geq ", "≠": r"\neq ",
        "≈": r"\approx ", "∞": r"\infty ", "π": r"\pi ", "°": r"^\circ ", "∪": r"\cup ",
        "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "∅": r"\emptyset ",
        "θ": r"\theta ", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
        "。": ".", "．": ".",
        "\u00a0": " ", "\u2002": " ", "\u2003": " ", "\u2009": " ", "\u202f": " ",
        "⁄": "/", "√": r"\sqrt ", "∛": r"\sqrt[3]", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
        "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}", "⟨": r"\langle ", "⟩": r"\rangle ", "′": "'",
        "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∠": r"\angle ",
        "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\epsilon ",
        "ζ": r"\zeta ", "η": r"\eta ", "ι": r"\iota ", "κ": r"\kappa ", "λ": r"\lambda ",
        "μ": r"\mu ", "ν": r"\nu ", "ξ": r"\xi ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ",
        "υ": r"\upsilon ", "φ": r"\phi ", "χ": r"\chi ", "ψ": r"\psi ", "ω": r"\omega ",
        "Γ": r"\Gamma ", "Δ": r"\Delta ", "Θ": r"\Theta ", "Λ": r"\Lambda ", "Ξ": r"\Xi ",
        "Π": r"\Pi ", "Σ": r"\Sigma ", "Φ": r"\Phi ", "Ψ": r"\Psi ", "Ω": r"\Omega ",
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},  # of full width, as below
        **{chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F) if not chr(code).isdigit()},
        "﹣": "-", "⩽": r"\leq ", "⩾": r"\geq ", "•": r"\cdot ", "∙": r"\cdot ", "∗": "*",
        "∜": r"\sqrt[4]", "…": "...", "∣": "|", "≡": r"\equiv ",
        **dict.fromkeys("\u200b\u200c\u200d\u2060\u2061\u2062\ufeff\u00ad"),  # seen by nobody
        **{
            character: "\\frac{" + unicodedata.normalize("NFKC", character).replace("⁄", "}{") + "}"
            for character in "⅓⅔⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
        },
        **{  # the letters and digits of mathematical alphabets
            chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0x1D400, 0x1D800)
        },
    }
)  # fmt: skip

_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n", strict=True))
_RAISED_RUN = re.compile("[" + "".join(_RAISED) + "]+")
_LOWERED_RUN = re.compile("[" + "".join(_LOWERED) + "]+")
_DEGREE_OF_ROOT = re.compile(r"^\s*([³⁴⁵⁶⁷⁸⁹])√\s*(\w)")  # inside a product it is an exponent
_RADICAL = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+(?:\.\d+)?))")


def _joined(match: re.Match[str]) -> str:
    """Thousands without their commas: no member of a list is written 000 or 042."""
    return match[0].replace(",", "")


def _ungrouped(match: re.Match[str]) -> str:
    """Thousands as the Swiss write them, 100'000, without their apostrophes."""
    return match[0].replace("'", "").replace("’", "")


def _chosen(match: re.Match[str]) -> str:
    """A binomial coefficient, where what is chosen is no more than what there is."""
    n, k = (match[1], match[2]) if match[1] else (match[3], match[4])
    return rf"\binom{{{n}}}{{{k}}}" if int(k) <= int(n) else match[0]


def _continental(match: re.Match[str]) -> str:
    """1.234,5 and 1 000,5: both separators stand there, so that each one's part is plain."""
    return f"{match[1].replace('.', '').replace(' ', '')}.{match[2]}"


_REPLACEMENTS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?(?=[^\w\s]|\\|$)", ""),
        (r"(?<=\.)(\d*)\\dot\s*\{?(\d)\}?(?!\d|\\dot)", r"\1\\overline{\2}"),
        (r"\\[hv]space\*?\s*\{[^{}]*\}|\\[hv]?phantom\s*\{[^{}]*\}", " "),
        (r"\{\s*\\(?:bf|rm|it|sf|tt|cal)(?![a-zA-Z])\s*([^{}]*)\}", r"{\1}"),
        (
            r"\\begin\{(align|gather|equation|aligned)(\*?)\}([^&\\]*)(?:\\\\\s*)?\\end\{\1\2\}",
            r"\3",
        ),
        (r"\\[lc]?dots[bcm]?(?![a-zA-Z])", r"\\ldots "),
        (r"\\(?:large|Large|LARGE|huge|small|boldmath)(?![a-zA-Z])", ""),
        (r"\\(?:text)?color\s*\{[a-zA-Z]+\}", ""),
        (r"(?:\\\\\s*)+$", ""),
        (r"[,\s]*\(?\b[a-zA-Z]\s*\\in\s*\\(?:mathbb|mathbf)\s*\{?[ZN]\}?(?:\^\+)?\)?$", ""),
        (r"\\(?:left|right|displaystyle|textstyle|limits|nolimits)(?![a-zA-Z])", ""),
        (r"(?<=\d)(?:,?\\!\s?,?|\{,\})(?=\d{3}(?!\d))", ""),  # 10,\!000 and 10{,}000
        (r"(?<=\d)\\[,; ](?=\d{3}(?!\d))", ""),
        (r"(?<![\w.'’])([1-9]\d{0,2}(?:['’]\d{3})+)(?![\w'’])", _ungrouped),
        (r"^\\(?:bf|rm|it|sf|tt)(?:series|family|shape)?(?![a-zA-Z])\s*", ""),
        (SEVERAL_UNITS, one_unit),
        (r"(?<!\\)\\[!,;:> ]|\\(?:quad|qquad|thinspace|medspace)(?![a-zA-Z])|(?<=.)~", " "),
        (r"\^\s*\{?\s*\\(?:text|mathrm)\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}?", ""),  # 12th
        (r"(?<=\d)(?:st|nd|rd|th)(?![a-zA-Z])", ""),
        (r"\\(?:[dtc]|nice|s)frac(?![a-zA-Z])", r"\\frac"),
        (r"\{([^{}]*)\\over(?![a-zA-Z])([^{}]*)\}", r"\\frac{\1}{\2}"),
        (r"^([^{}]*)\\over(?![a-zA-Z])([^{}]*)$", r"\\frac{\1}{\2}"),
        (r"\{([^{}]*)\\choose(?![a-zA-Z])([^{}]*)\}", r"\\binom{\1}{\2}"),
        (r"^(\w+) choose (\w+)$", r"\\binom{\1}{\2}"),
        (
            r"\\(?:operatorname\*?|mathrm|text)\s*\{\s*(arc)?(tg|ctg|sin|cos|tan|cot|gcd|lcm)\s*\}",
            r"\\\1\2 ",
        ),
        (r"(?<![\\a-zA-Z])(arc)?(c?tg)(?![a-zA-Z])", r"\\\1\2"),
        (r"(?<![\\a-zA-Z])log(2|10)\(", r"\\log_{\1}("),
        (r"\\(?:hat|vec|widehat)\s*\{?\s*\\?([ijk])(?:math)?\s*\}?(?![a-zA-Z])", r"\1"),
        (r"\\mathbb\s*([A-Z])(?![a-zA-Z])", r"\\mathbb{\1}"),
        (r"\\mathbf\s*\{?\s*([RZQN])\s*\}?", r"\\mathbb{\1}"),
        (r"(?<=[)\]}])\s*U\s*(?=[(\[\\])", r"\\cup "),
        (r"(?<=\d)\s*[xX]\s*(?=10\s*(?:\^|\*\*))", r"\\times "),
        (r"(?<![a-zA-Z\\])([a-zA-Z])_(\d{2,})", r"\1_{\2}"),
        (r"\\colon(?![a-zA-Z])", ":"),
        (r"\+/-", r"\\pm "),
        (r"\\(?:boxed|fbox)\s*(\w)(?!\w)", r"\1"),
        (r"(?<![\\a-zA-Z])(?:binomial|binom|comb)\((\w+), ?(\w+)\)", r"\\binom{\1}{\2}"),
        (r"(?<![\\a-zA-Z])factorial\((\w+)\)", r"(\1)!"),
        (r"\{\}_\{?(\w+)\}?\s*C_\{?(\w+)\}?", r"\\binom{\1}{\2}"),
        (
            r"(?<![\\a-zA-Z])C(?:_\{?(\d{1,4})\}?\^\{?(\d{1,4})\}?|\((\d{1,4}), ?(\d{1,4})\))",
            _chosen,
        ),
        (r"^(-?\d{1,3}(?:[. ]\d{3})+),(\d+)$", _continental),
        (r"^(-?\d*\.\d*)\((\d+)\)$", r"\1\\overline{\2}"),
        (r"(?<=\.)(\d*)\\bar\s*\{?(\d+)\}?", r"\1\\overline{\2}"),
        (r"^\](?=[^\[\]]*[,;])([^\[\]]+)([\[\]])$", r"(\1\2"),  # half-open in the French way
        (r"^([(\[])(?=[^\[\]]*[,;])([^\[\]]+)\[$", r"\1\2)"),
        (r"(?<=\.)(\d{0,20}?)(\d{1,20}?)\2{2,}(?:\\ldots ?|\.\.\.)$", r"\1\\overline{\2}"),
        (r"(?<![\d.,])([1-9]\d{0,2}(?:,\d{3})*,0\d\d(?:,\d{3})*)(?![\d,])", _joined),
        (
            r"(?<![\\a-zA-Z])(alpha|beta|gamma|delta|theta|lambda|sigma|omega|phi|rho)(?![a-zA-Z])",
            r"\\\1",
        ),
        (r"\\\$|\$", ""),
        (r"\\(?:lbrace|{)(?![a-zA-Z])", r"\\{"),
        (r"\\(?:rbrace|})(?![a-zA-Z])", r"\\}"),
        (r"\\(?:le|leqslant)(?![a-zA-Z])", r"\\leq"),
        (r"\\(?:ge|geqslant)(?![a-zA-Z])", r"\\geq"),
        (r"\\ne(?![a-zA-Z])|!=", r"\\neq"),
        (r"<=", r"\\leq "),
        (r">=", r"\\geq "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\(?:varnothing|O)(?![a-zA-Z])", r"\\emptyset"),
        (r"\\infin(?![a-zA-Z])|(?<![\\a-zA-Z])(?:infinity|oo|inf)(?![a-zA-Z])", r"\\infty"),
        (r"\+\s*(?=\\infty)", ""),
        (r"\\%", "%"),
        (r"(?i)(?<=[\d}])\s*(?:\\text\{\s*)?(?:percent|pct)\b\}?", "%"),
        (r"\\ast(?![a-zA-Z])", r"\\cdot "),
        (r"\*\*", "^"),
        (r"(?<![\\a-zA-Z])sqrt\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![\\a-zA-Z])(sin|cos|tan|log|ln|exp|pi)(?![a-zA-Z])", r"\\\1"),
        (r"\^\(([^()]*)\)", r"^{(\1)}"),
        (r"\*", r"\\cdot "),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}"),
        (r"\\sqrt\s*(\w)", r"\\sqrt{\1}"),
        (r"_(\w)", r"_{\1}"),
        (r"\s+", " "),
    )
)

_TEXT_COMMAND = re.compile(
    r"\\(?:text(?:bf|it|rm|normal|sf|tt)?|mathrm|mathbf|mathit|mathsf|mathtt|mathcal|[mh]box|operatorname|ensuremath"
    r"|bold|bm"
    r"|boldsymbol|underline)"
    r"\s*\{([^{}]*)\}"
)
_NUMBER_AS_TEXT = re.compile(
    r"^\\(?:text(?:bf|it|rm|normal)?|mathrm|mathbf)\{\s*(-?\.?\d[^{}]*)\}$"
)
_OPTION = re.compile(r"^(?:option|choice) ?(\(?[A-J]\)?)$", re.IGNORECASE)
_DIGITS_ALONE = re.compile(r"-?(?:0|[1-9]\d{0,300})")
_FULL_STOP = re.compile(r"(?<!\.)\.$")  # 5... goes on
_NAME_ALONE = re.compile(r"[a-zA-Z](?:_\{\w+\})?")
_IN_BASE = re.compile(
    r"(?P<open>\()?0*(?P<digits>[1-9][\dA-F]*|0)(?(open)\))"
    r"(?:_\{(?P<index>\d{1,2})\}| \(?base[ -]?(?P<base>\d{1,2})\)?)"
)
_DOLLARS = re.compile(r"\s*(?:\\\$|\$[^$]*$)")  # two dollar signs surround a formula
_CURRENCIES = {"€": "euro", "¥": "yen", "₹": "rupee", "£": "?£"}  # £ is no pound of weight
_CURRENCY = re.compile(r"^[£€¥₹]\s*|\s*[£€¥₹]$")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """An answer in one spelling, without its unit. ``unit`` is None where there was none."""

    text: str
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number; ``decimals`` is the count of digits after the point, if it had one."""

    value: Fraction
    percent: bool = False
    decimals: int | None = None


@lru_cache(maxsize=8192)
def clean(answer: str) -> Cleaned:
    """Spell an answer in one way and set its unit aside. Linear time but for nested commands."""
    text = trimmed(answer)
    if _DIGITS_ALONE.fullmatch(text):
        return Cleaned(text)
    if not text.isascii():
        text = _DEGREE_OF_ROOT.sub(lambda match: rf"\sqrt[{_RAISED[match[1]]}]{match[2]}", text)
        text = _RADICAL.sub(lambda match: rf"\sqrt{{{match[1] or match[2]}}}", text)
        text = _RAISED_RUN.sub(lambda run: "^{" + "".join(_RAISED[c] for c in run[0]) + "}", text)
        text = _LOWERED_RUN.sub(lambda run: "_{" + "".join(_LOWERED[c] for c in run[0]) + "}", text)
        text = text.translate(_CHARACTERS)
    text = re.sub(r"^\\[\[(]|\\[\])]\s*\.?$", "", text).strip()
    text = _NUMBER_AS_TEXT.sub(r"\1", text)
    if "\\langle" in text and "," in text:  # a vector; two arguments of a product stay as they are
        text = text.replace("\\langle", "(").replace("\\rangle", ")")
    if "\\begin" not in text:  # outside a matrix a doubled backslash is one escaped twice
        text = re.sub(r"\\\\(?=[a-zA-Z{}])", r"\\", text)
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    text = _without_approximation(text)
    text = _FULL_STOP.sub("", text.strip()).rstrip()
    text, unit = split_unit(text)
    currency = _CURRENCY.search(text) if unit is None else None
    if currency:
        text, unit = _CURRENCY.sub("", text), _CURRENCIES[currency[0].strip()]
    elif unit is None and _DOLLARS.match(answer):
        unit = "dollar"
    while True:
        unwrapped = _TEXT_COMMAND.sub(lambda match: f" {match[1].strip()} ", text)
        if unwrapped == text:
            break
        text = unwrapped
    text = _FULL_STOP.sub("", re.sub(r"\s+", " ", text).strip(" ,;:"))
    based = _IN_BASE.fullmatch(text)
    if based:
        text = f"{based['digits']}_{{{based['index'] or based['base']}}}"
    text = _OPTION.sub(r"\1", text)
    return Cleaned(re.sub(r"\s*([-+=<>/^(){}\[\]&])\s*(?!(?:and|or)\b)", r"\1", text), unit)


def _without_approximation(text: str) -> str:
    r"""What ``\approx`` is said of, unless that is a mere name: about 5 is not 5."""
    exact, sign, rest = text.partition("\\approx")
    if not sign or rest[:1].isalpha():
        return text
    if _NAME_ALONE.fullmatch(exact.strip()):
        return text
    return exact.strip() or text


_INTEGER = r"\d+|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})+"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]*)(?:(?P<whole>{_INTEGER})?(?:\.(?P<decimals>\d*))?)(?P<percent> ?%)?"
)
_FRACTION = re.compile(
    r"(?P<sign>[-+]*)(?:(?P<whole>\d+)? ?\\frac\{(?P<n1>-?\d+)\}\{(?P<d1>-?\d+)\}"
    r"|(?P<n2>\d+)/(?P<d2>\d+)|\((?P<n3>-?\d+)\)/\((?P<d3>-?\d+)\))(?P<percent> ?%)?"
)
_SCIENTIFIC = re.compile(
    r"(?P<sign>-?)(?P<digits>\d+(?:\.\d+)?)[eE](?P<exponent>[-+]?\d{1,3})(?P<percent> ?%)?"
)
_REPEATING = re.compile(
    r"(?P<sign>-?)(?P<whole>\d*)\.(?P<fixed>\d*)\\overline\{(?P<period>\d+)\}(?P<percent> ?%)?"
)
_PLAIN_MIXED = re.compile(r"(?P<sign>-?)(?P<whole>\d+) (?P<n>\d+)/(?P<d>\d+)")


def parse_number(text: str) -> Number | None:  # noqa: PLR0911 - a list of cases
    """Read a cleaned text as an exact number, or None.

    Integers, decimals, fractions, mixed numbers and percentages, with thousands separators.
    """
    if len(text) > MAX_DIGITS or not any(character.isdigit() for character in text):
        return None
    if not text.isascii():
        return None
    while len(text) > 2 and text[0] == "{" and text[-1] == "}" and "{" not in text[1:]:
        text = text[1:-1]
    match = _NUMBER.fullmatch(text)
    if match:
        whole = (match["whole"] or "0").replace(",", "").replace(" ", "")
        decimals = match["decimals"] or ""
        value = Fraction(int(whole + decimals), 10 ** len(decimals))
        return _signed(value, match, len(decimals) or None)
    match = _PLAIN_MIXED.fullmatch(text)
    if match and int(match["d"]):
        value = int(match["whole"]) + Fraction(int(match["n"]), int(match["d"]))
        return Number(-value if match["sign"] else value)
    match = _SCIENTIFIC.fullmatch(text)
    if match:
        return _signed(Fraction(f"{match['digits']}e{match['exponent']}"), match, None)
    match = _REPEATING.fullmatch(text)
    if match:
        return _signed(_repeating_value(match), match, None)
    match = _FRACTION.fullmatch(text)
    if not match:
        return None
    top, bottom = next(
        (int(match[f"n{i}"]), int(match[f"d{i}"])) for i in "123" if match[f"n{i}"] is not None
    )
    if bottom == 0:
        return None
    value = Fraction(top, bottom)
    if match["whole"]:
        if value < 0:  # 3\frac{-1}{2} is a product at best
            return None
        value += int(match["whole"])
    return _signed(value, match, None)


def _repeating_value(match: re.Match[str]) -> Fraction:
    r"""The value of a repeating decimal: 0.1\overline{6} is 1/6."""
    fixed, period = match["fixed"], match["period"]
    value = Fraction(int((match["whole"] or "0") + fixed), 10 ** len(fixed))
    return value + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))


def _signed(value: Fraction, match: re.Match[str], decimals: int | None) -> Number:
    negative = match["sign"].count("-") % 2
    return Number(-value if negative else value, bool(match["percent"]), decimals)


_NAME = r"\\?[a-zA-Z]+'?(?:_\{\w+\})?"
_LEFT_SIDE = re.compile(
    rf"^(?P<left>{_NAME}(?:\^\{{-1\}})?(?:\([\w,]+\))?|P\([^()]*\)|\|[A-Z]{{2}}\||\([\w,]+\)|[a-zA-Z]{{1,3}}\([\w,]*\)"
    rf"|{_NAME}(?::{_NAME})+|m?\\(?:angle|triangle) ?[A-Z]{{1,3}}"
    r"|\\frac\{d[a-zA-Z]?\}\{d[a-zA-Z]\}"
    r"|[EP]\[[\w,]+\]|\\(?:overline|vec)\{[A-Za-z]+\})=(?!=)"
)


def left_side(text: str) -> str | None:
    """``x`` of ``x=5``: a name, a name with an index or an argument, a tuple of names."""
    match = _LEFT_SIDE.match(text)
    return match["left"] if match else None


def right_side(text: str) -> str:
    """What stands after the last equals sign of an assignment or a computation."""
    return text.rpartition("=")[2]
