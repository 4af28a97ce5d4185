"""Units behind an answer: set aside, named in one way, told from products of names."""

from __future__ import annotations

import re

_UNIT = r"\\(?:text|mathrm)\s*\{\s*[a-zA-Z]+\s*\}(?:\s*\^\s*\{?-?\d\}?)?"
SEVERAL_UNITS = (  # \text{N}\cdot\text{m}, \frac{\text{m}}{\text{s}^2}
    rf"(?<=[\d)}}])\s*(?:\\[,;: ]\s*)?(\\[dt]?frac\s*\{{\s*{_UNIT}\s*\}}\s*\{{\s*{_UNIT}\s*\}}"
    rf"|{_UNIT}(?:\s*(?:/|\\cdot(?![a-zA-Z])|\\[,;])\s*{_UNIT})+)[\s.]*$"
)
_TRAILING_UNIT = re.compile(
    r"(?<=[\d\w})\]%])\s*\\(?:text(?:bf|it|rm|normal)?|mathrm|[mh]box)\s*\{(?![ei]\})(?P<unit>[^{}]*)\}"
    r"(?:\s*\^\s*\{?(?P<power>\d)\}?)?\s*\.?$"
)
_DEGREES = re.compile(
    r"\s*\^\s*\{?\s*\\(?:circ|degree)\s*\}?\s*(?:[CF]|\\(?:text|mathrm)\{ ?[CF]\})?$|\\degree$"
)
_WORD_UNIT = re.compile(
    r"^(?P<value>[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+|\\frac\{\d+\}\{\d+\}|\d+/\d+))\s*"
    r"(?P<unit>[a-zA-Z]{2,}(?:[ -][a-zA-Z]+)*)(?:\s*\^\s*\{?(?P<power>\d)\}?)?\.?$"
)
# Letters that are a word, not a product of names (xyz) or a function of one (sinx); so is "men",
# a vowel between consonants.
_WORD_ALIKE = re.compile(
    r"(?!(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|ln|exp)h?(?:[xyz]|theta|alpha|beta|phi)$)(?:[a-z]{4,}"
    r"|(?!pi)[b-df-hj-np-tv-z][aeiou][b-df-hj-np-tv-z]|egg|ant|ice|age|ink|way|boy|toy|key|pie|pea|bee)$",
    re.IGNORECASE,
)
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")  # of an angle in degrees
_SHORT_UNIT = re.compile(r"(?P<value>-?[\d.,]+) ?(?P<unit>[a-zA-Z])")
_LONG_UNIT = re.compile(  # after what is no mere number: 2\pi cm, 5\sqrt{2} units
    r"(?<=[\d\w})\]]) (?P<unit>(?:square |cubic |sq )?(?:units?|[mck]m|inches|feet|ft|yards|miles"
    r"|meters|centimeters|kilometers|degrees|radians|seconds|minutes|hours|kg|grams|dollars|cents))"
    r"(?:\s*\^\s*\{?(?P<power>\d)\}?)?$"
)
_TIME = re.compile(
    r"(?P<time>\d{1,2}(?::\d\d)?)\s*(?:\\(?:text|mathrm)\s*\{\s*)?(?P<half>[apAP])\.?\s?[mM]\.?\s*\}?"
)
_SPEED_OR_AREA = re.compile(
    r"^(?P<value>[-+]?\d[\d,]*(?:\.\d+)?"
    r"(?:\s*\\(?:times|cdot)\s*10\s*\^\s*(?:\{-?\d+\}|\d+))?)\s+(?P<unit>m|km|cm)"
    r"(?:\s*\^\s*\{?(?P<power>[23])\}?|/(?P<per>h|s(?:\s*\^\s*(?:2|\{2\}))?))$"
)
_NO_UNIT = frozenset(  # words that change the number before them
    ["pi", "and", "or", "base", "half", "dozen", "hundred", "thousand", "million", "billion",
     "trillion", "dozens", "billions", "trillions", "lakh", "lakhs", "crore", "crores", "score",
     "sqrt", "below", "more", "less", "fewer", "least", "most", "plus", "minus", "times", "not",
     "mod", "modulo", "squared", "cubed", "factorial", "choose", "over", "root", "tens", "hundreds",
     "thousands", "millions", "halves", "thirds", "quarters", "fourths", "fifths", "sixths",
     "sevenths", "eighths", "ninths", "tenths", "hundredths", "thousandths", "if", "when", "unless",
     "except", "otherwise", "wrong", "incorrect", "false", "impossible", "remainder", "r"]
)  # fmt: skip
_NO_SHORT_UNIT = frozenset("abeijknpqruvwxyzBMT")  # names of values, thousands, millions
_LONG_WORD = 4  # letters; more of them are no product, even written to the number
_LETTERS = re.compile(r"[a-z]+")

# Spellings of one unit; two answers whose units are both known and differ are not the same.
_UNITS = {
    spelling: names.split()[0]
    for names in (
        "mm millimeter millimeters", "cm centimeter centimeters", "m meter meters metre metres",
        "km kilometer kilometers kilometre kilometres", "nm nanometer nanometers",
        "inch inches in", "ft foot feet", "yd yard yards", "mi mile miles",
        "s second seconds sec secs", "ms millisecond milliseconds", "min minute minutes mins",
        "h hour hours hr hrs", "day days", "week weeks", "month months", "year years",
        "mg milligram milligrams", "g gram grams", "kg kilogram kilograms", "lb pound pounds lbs",
        "oz ounce ounces", "ton tons", "L l liter liters litre litres",
        "mL ml milliliter milliliters millilitre millilitres", "gallon gallons gal",
        "quart quarts", "pint pints", "cup cups", "N newton newtons", "J joule joules",
        "kJ kilojoule kilojoules", "W watt watts", "kW kilowatt kilowatts", "V volt volts",
        "Hz hertz", "Pa pascal pascals", "K kelvin kelvins", "dollar dollars usd",
        "cent cents", "euro euros", "yen", "rupee rupees", "mph", "km/h kph kmh kmph", "m/s mps",
        "m/s^2", "AU", "eV", "kB", "MB", "GB", "TB", "dB", "mA", "kN", "kV", "MW", "mV", "dm", "dl",
        "am", "pm", "degree degrees", "celsius", "fahrenheit", "radian radians rad",
    )
    for spelling in names.split()
}  # fmt: skip


def one_unit(match: re.Match[str]) -> str:
    r"""``\frac{\text{m}}{\text{s}^2}`` as ``\text{m/s^2}``."""
    unit = match[1]
    if "frac" in unit:
        unit = re.sub(r"\}\s*\{", "/", unit.partition("frac")[2], count=1)
    unit = re.sub(r"\\(?:text|mathrm)|[{}\s]", "", re.sub(r"\\(?:cdot|,|;)", ".", unit))
    if not _NO_SHORT_UNIT.isdisjoint(re.split(r"[^a-zA-Z]+", unit)):
        return match[0]
    return rf" \text{{{unit}}}"


def split_unit(text: str) -> tuple[str, str | None]:  # noqa: PLR0911 - a list of cases
    """Take a trailing unit off: degrees, words in a text command, words after a number."""
    degrees = _DEGREES.search(text)
    if degrees and degrees.start() and not _FUNCTION.search(text):
        scale = re.search(r"[CF]", degrees[0].rpartition("circ")[2].rpartition("degree")[2])
        names = {"C": "celsius", "F": "fahrenheit"}
        return text[: degrees.start()], names[scale[0]] if scale else "degree"
    time = _TIME.fullmatch(text)
    if time:
        return time["time"], f"{time['half'].lower()}m"
    match = _SPEED_OR_AREA.match(text)
    if match is not None:
        per = re.sub(r"[\s{}]", "", match["per"] or "")
        unit = match["unit"] + (f"/{per}" if per else "")
        return match["value"], _unit_name(unit, match["power"])
    match = _TRAILING_UNIT.search(text)
    if match is None:
        match = _WORD_UNIT.match(text)
        if match is None:
            longer = _LONG_UNIT.search(text)
            if longer is None or not text[: longer.start()].strip("+-*/= "):
                return text, None
            return text[: longer.start()], _unit_name(longer["unit"], longer["power"])
        if not _NO_UNIT.isdisjoint(_LETTERS.findall(match["unit"].lower())):
            return text, None
        if not _measures(match["unit"], apart=text[match.start("unit") - 1] == " "):
            return text, None
        return match["value"], _unit_name(match["unit"], match["power"])
    words = match["unit"].strip()
    letters = _LETTERS.findall(words.lower())
    if not letters or not _NO_UNIT.isdisjoint(letters) or words in _NO_SHORT_UNIT:
        return text, None
    return text[: match.start()].rstrip(), _unit_name(words.lower(), match["power"])


def _measures(unit: str, *, apart: bool) -> bool:
    """Whether letters behind a number are a unit or what is counted, not a product as in ``24xyz``.

    ``apart``: a space stands between; without one only known units and long words are read.
    """
    words = re.split("[ -]", unit)
    return any(
        word in _UNITS
        or word.lower() in _UNITS
        or (_WORD_ALIKE.match(word) is not None and (apart or len(word) > _LONG_WORD))
        for word in words
    )


def _unit_name(words: str, power: str | None) -> str:
    """One name for a unit: ``square inches`` and ``inches^2`` are ``inch^2``."""
    words = words.strip().rstrip(".")
    words = words if words in _UNITS else words.lower()
    words = words.removeprefix("degrees ").replace("miles per hour", "mph")
    words = words.replace("kilometers per hour", "km/h").replace("meters per second", "m/s")
    for prefix, exponent in (("square ", "2"), ("sq ", "2"), ("cubic ", "3")):
        if words.startswith(prefix):
            words, power = words.removeprefix(prefix), exponent
    name = _UNITS.get(words)
    return f"?{words}" if name is None else name + (f"^{power}" if power else "")


def units_conflict(one: str | None, other: str | None) -> bool:
    """Whether both units are known and are not the same one."""
    if one is None or other is None or one[0] == "?" or other[0] == "?":
        return False
    angles = {"degree", "celsius", "fahrenheit"}  # 20° may be a temperature
    return one != other and not (one in angles and other in angles and "degree" in (one, other))


def without_unit_of(other: str | None, text: str) -> str:
    """A number without the short name of the other answer's unit: ``3 h`` beside ``3 hours``.

    Beside another answer, 3 h is a product.
    """
    match = _SHORT_UNIT.fullmatch(text)
    if match and other is not None and _UNITS.get(match["unit"]) == other:
        return match["value"]
    return text
