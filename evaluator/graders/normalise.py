"""One spelling for answers that are written differently, and exact numbers. No evaluation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

MAX_DIGITS = 400  # of a number that is compared exactly; longer ones are compared as text

_CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ",
        "⋅": r"\cdot ", "÷": "/", "∕": "/", "≤": r"\leq ", "≥": r"\geq ", "≠": r"\neq ",
        "≈": r"\approx ", "∞": r"\infty ", "π": r"\pi ", "°": r"^\circ ", "∪": r"\cup ",
        "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "∅": r"\emptyset ",
        "θ": r"\theta ", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
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
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},  # of full width
        "，": ",", "；": ";", "：": ":", "（": "(", "）": ")", "％": "%", "［": "[", "］": "]",
    }
)  # fmt: skip

_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n", strict=True))
_RAISED_RUN = re.compile("[" + "".join(_RAISED) + "]+")
_LOWERED_RUN = re.compile("[" + "".join(_LOWERED) + "]+")
_RADICAL = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+(?:\.\d+)?))")

_REPLACEMENTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?(?=[^\w\s]|\\|$)", ""),
        (r"(?<=\.)(\d*)\\dot\s*\{?(\d)\}?(?!\d|\\dot)", r"\1\\overline{\2}"),
        (r"\\(?:large|Large|LARGE|huge|small|boldmath)(?![a-zA-Z])", ""),
        (r"\\(?:text)?color\s*\{[a-zA-Z]+\}", ""),
        (r"(?:\\\\\s*)+$", ""),
        (r"[,\s]*\(?\b[a-zA-Z]\s*\\in\s*\\(?:mathbb|mathbf)\s*\{?[ZN]\}?(?:\^\+)?\)?$", ""),
        (r"\\(?:left|right|displaystyle|textstyle|limits|nolimits)(?![a-zA-Z])", ""),
        (r"(?<=\d)(?:,?\\!\s?,?|\{,\})(?=\d{3}(?!\d))", ""),  # 10,\!000 and 10{,}000
        (r"(?<=\d)\\[,; ](?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\[!,;:> ]|\\(?:quad|qquad|thinspace|medspace)(?![a-zA-Z])|~", " "),
        (r"\^\s*\{?\s*\\(?:text|mathrm)\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}?", ""),  # 12th
        (r"(?<=\d)(?:st|nd|rd|th)(?![a-zA-Z])", ""),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
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
    r"\\(?:text(?:bf|it|rm|normal|sf|tt)?|mathrm|mathbf|mathit|mathsf|mathcal|mbox|operatorname|bold|bm"
    r"|boldsymbol|underline)"
    r"\s*\{([^{}]*)\}"
)
_TRAILING_UNIT = re.compile(
    r"(?<=[\d\w})\]%])\s*\\(?:text(?:bf|it|rm|normal)?|mathrm|mbox)\s*\{(?P<unit>[^{}]*)\}"
    r"(?:\s*\^\s*\{?(?P<power>\d)\}?)?\s*\.?$"
)
_DEGREES = re.compile(
    r"\s*\^\s*\{?\s*\\(?:circ|degree)\s*\}?\s*(?:[CF]|\\(?:text|mathrm)\{ ?[CF]\})?$|\\degree$"
)
_WORD_UNIT = re.compile(
    r"^(?P<value>[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+|\\frac\{\d+\}\{\d+\}|\d+/\d+))\s*"
    r"(?P<unit>[a-zA-Z]{2,}(?:[ -][a-zA-Z]+)*)(?:\s*\^\s*\{?(?P<power>\d)\}?)?\.?$"
)
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")  # of an angle in degrees
_SPEED_OR_AREA = re.compile(
    r"^(?P<value>[-+]?\d[\d,]*(?:\.\d+)?"
    r"(?:\s*\\(?:times|cdot)\s*10\s*\^\s*(?:\{-?\d+\}|\d+))?)\s+(?P<unit>m|km|cm)"
    r"(?:\s*\^\s*\{?(?P<power>[23])\}?|/(?P<per>h|s))$"
)
_NO_UNIT = frozenset(  # words that change the number before them
    ["pi", "and", "or", "base", "half", "dozen", "hundred", "thousand", "million", "billion",
     "trillion", "more", "less", "fewer", "least", "most", "plus", "minus", "times", "not", "mod"]
)  # fmt: skip
_OPTION = re.compile(r"^(?:option|choice) ?(\(?[A-J]\)?)$", re.IGNORECASE)
_CURRENCY = re.compile(r"^[£€¥₹]\s*|\s*[£€¥₹]$")

# Spellings of one unit; two answers whose units are both known and differ are not the same.
_UNITS = {
    spelling: names.split()[0]
    for names in (
        "mm millimeter millimeters", "cm centimeter centimeters", "m meter meters",
        "km kilometer kilometers", "inch inches in", "ft foot feet", "yd yard yards",
        "mi mile miles", "s second seconds sec", "min minute minutes", "h hour hours hr hrs",
        "day days", "week weeks", "month months", "year years", "g gram grams",
        "kg kilogram kilograms", "lb pound pounds lbs", "oz ounce ounces", "dollar dollars",
        "cent cents", "mph", "km/h kph kmh", "m/s", "radian radians",
    )
    for spelling in names.split()
}  # fmt: skip


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
    text = answer
    if not text.isascii():
        text = _RADICAL.sub(lambda match: rf"\sqrt{{{match[1] or match[2]}}}", text)
        text = _RAISED_RUN.sub(lambda run: "^{" + "".join(_RAISED[c] for c in run[0]) + "}", text)
        text = _LOWERED_RUN.sub(lambda run: "_{" + "".join(_LOWERED[c] for c in run[0]) + "}", text)
        text = text.translate(_CHARACTERS)
    text = text.strip()
    text = re.sub(r"^\\[\[(]|\\[\])]$", "", text).strip()
    if "\\begin" not in text:  # outside a matrix a doubled backslash is one escaped twice
        text = re.sub(r"\\\\(?=[a-zA-Z{}])", r"\\", text)
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    text = re.split(r"\\approx(?![a-zA-Z])", text, maxsplit=1)[0].strip() or text
    text, unit = _split_unit(text.strip().rstrip(" ."))
    text = _CURRENCY.sub("", text)
    while True:
        unwrapped = _TEXT_COMMAND.sub(lambda match: f" {match[1].strip()} ", text)
        if unwrapped == text:
            break
        text = unwrapped
    text = re.sub(r"\s+", " ", text).strip(" ,;:").rstrip(".")
    text = _OPTION.sub(r"\1", text)
    return Cleaned(re.sub(r"\s*([-+=<>/^(){}\[\]&])\s*(?!(?:and|or)\b)", r"\1", text), unit)


def _split_unit(text: str) -> tuple[str, str | None]:  # noqa: PLR0911 - a list of cases
    """Take a trailing unit off: degrees, words in a text command, words after a number."""
    degrees = _DEGREES.search(text)
    if degrees and degrees.start() and not _FUNCTION.search(text):
        return text[: degrees.start()], "degree"
    match = _SPEED_OR_AREA.match(text)
    if match is not None:
        unit = match["unit"] + (f"/{match['per']}" if match["per"] else "")
        return match["value"], _unit_name(unit, match["power"])
    match = _TRAILING_UNIT.search(text)
    if match is None:
        match = _WORD_UNIT.match(text)
        if match is None:
            return text, None
        if not _NO_UNIT.isdisjoint(match["unit"].lower().split()):
            return text, None
        return match["value"], _unit_name(match["unit"], match["power"])
    words = match["unit"].strip().lower()
    if not words or not _NO_UNIT.isdisjoint(words.split()):
        return text, None
    return text[: match.start()].rstrip(), _unit_name(words, match["power"])


def _unit_name(words: str, power: str | None) -> str:
    """One name for a unit: ``square inches`` and ``inches^2`` are ``inch^2``."""
    words = words.strip().lower().rstrip(".")
    for prefix, exponent in (("square ", "2"), ("sq ", "2"), ("cubic ", "3")):
        if words.startswith(prefix):
            words, power = words.removeprefix(prefix), exponent
    name = _UNITS.get(words)
    return f"?{words}" if name is None else name + (f"^{power}" if power else "")


def units_conflict(one: str | None, other: str | None) -> bool:
    """Whether both units are known and are not the same one."""
    if one is None or other is None or one[0] == "?" or other[0] == "?":
        return False
    return one != other


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
