r"""Reads one mathematical expression, in LaTeX or as plain text, into a tree. Nothing is evaluated.

The whole text has to make sense: ``12^{`` is refused, not read as 12. A tree is nested tuples::

    ("number", Fraction)  ("symbol", name)  ("constant", name)  ("sum", (trees))
    ("product", (trees))  ("quotient", a, b)  ("negative", a)  ("power", a, b)
    ("root", degree, a)  ("call", function, a)  ("log", base or None, a)
    ("factorial", a)  ("binomial", n, k)  ("digits", text, base)
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

Tree = tuple[Any, ...]

MAX_DEPTH = 40  # of brackets
MAX_LINKS = 100  # divisions, factorials and degrees: each is a level of the tree
MAX_NUMBER_DIGITS = 4000  # Python converts no longer ones without being told to
MAX_WORD = 3  # letters of a product without signs (abc); longer runs are words, not mathematics

# Never products of their letters: 0 if n is odd is not 0 times something.
_ENGLISH = frozenset(
    ["if", "is", "or", "of", "to", "for", "the", "not", "but", "are", "was", "any", "all", "odd",
     "and", "has", "its", "per"]
)  # fmt: skip
FUNCTIONS = frozenset(
    ["sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh",
     "tanh", "coth", "ln", "exp", "abs", "floor", "ceil"]
)  # fmt: skip
_SPELLINGS = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "tg": "tan", "ctg": "cot",
    "arctg": "arctan", "cosec": "csc", "ceiling": "ceil",
}  # fmt: skip
_GREEK = frozenset(
    ["alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta",
     "iota", "kappa", "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi",
     "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi",
     "Omega", "ell", "hbar", "infty", "partial", "nabla"]
)  # fmt: skip
_SAME_LETTER = {"varepsilon": "epsilon", "vartheta": "theta", "varphi": "phi"}
_FACTORS = FUNCTIONS | _GREEK | {
    "pi", "log", "lg", "sqrt", "frac", "binom", "dbinom", "tbinom", "lfloor", "lceil", "lvert",
    "vec", "overrightarrow", "hat", "bar", "overline", "tilde", "dot",
}  # fmt: skip
_PLAIN = sorted(
    FUNCTIONS | _SPELLINGS.keys() | _GREEK | {"pi", "log", "sqrt", "cbrt", "lg"},
    key=len,
    reverse=True,
)
# What a slower reader knows and this one does not; all other unknown commands are not read at all.
_BEYOND = re.compile(
    r"\\(?:int|iint|oint|sum|prod|lim|leq|geq|neq|in|notin|cup|cap|setminus|subset|subseteq|mathbb"
    r"|emptyset|begin|end|land|lor|wedge|vee|mod|pmod|bmod|gcd|lcm|max|min|det"
    r"|to|mid|quad|cdots|dots|ldots|operatorname)(?![a-zA-Z])|[<>=]"
)
_NUMBER = re.compile(
    r"(?:(?P<head>\d*\.\d*)\\overline\{(?P<period>\d{1,50})\})|\d+(?:\.\d*)?|\.\d+"
)
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_WORD = re.compile(r"[a-zA-Z]+")
# One name, not a function of the letters below the mark.
_ACCENTED = re.compile(
    r"\\(?P<mark>vec|overrightarrow|hat|bar|overline|tilde|dot)\s*"
    r"(?:\{\s*(?P<name>[a-zA-Z]{1,2}|\\[a-zA-Z]+)\s*\}|(?P<letter>[a-zA-Z])(?![a-zA-Z]))"
)
_SPACE = re.compile(r"\s+")
_INDEX = re.compile(r"_(?:\{((?:[\w, +'*-]|\\[a-zA-Z]+){1,20})\}|(\w|\\[a-zA-Z]+))")
_APPLIED = re.compile(r"\(-?\w{1,3}\)")  # f(2) is a value of f, not 2f
_SCIENTIFIC = re.compile(r"[eE]([-+]?\d{1,4})(?![\w.])")
_TIMES = ("\\cdot", "\\times", "\\ast", "*")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class UnreadableError(ValueError):
    """The text is no expression, or not all of it is."""


@lru_cache(maxsize=4096)
def read(text: str) -> Tree | None:
    """The tree of an expression; None where it goes beyond this reader.

    Raises UnreadableError where it is not an expression. Linear time; nesting is bounded.
    """
    if _BEYOND.search(text):
        return None
    return _Reader(text).whole()


class _Reader:
    """A recursive-descent reader over one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._links = 0
        self._bars = 0

    def whole(self) -> Tree:
        tree = self._sum()
        self._space()
        if self._at != len(self._text):
            raise UnreadableError(f"{self._text[self._at : self._at + 20]!r} is left over")
        return tree

    # The text.

    def _space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        if match:
            self._at = match.end()

    def _peek(self, *tokens: str) -> str | None:
        self._space()
        for token in tokens:
            if self._text.startswith(token, self._at):
                after = self._text[self._at + len(token) : self._at + len(token) + 1]
                if token[0] == "\\" and token[-1].isalpha() and after.isalpha():
                    continue
                return token
        return None

    def _take(self, *tokens: str) -> str | None:
        token = self._peek(*tokens)
        if token is not None:
            self._at += len(token)
        return token

    def _need(self, token: str) -> None:
        if self._take(token) is None:
            raise UnreadableError(f"{token} is missing")

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError("it is nested too deeply")

    def _link(self) -> None:
        self._links += 1
        if self._links > MAX_LINKS:
            raise UnreadableError("it is too long a chain")

    # The grammar.

    def _sum(self) -> Tree:
        self._enter()
        terms = []
        sign = self._take("+", "-")
        while True:
            term = self._product()
            terms.append(("negative", term) if sign == "-" else term)
            sign = self._take("+", "-")
            if sign is None:
                break
        self._depth -= 1
        return terms[0] if len(terms) == 1 else ("sum", tuple(terms))

    def _product(self) -> Tree:
        factors = [self._signed()]
        while True:
            if self._take(*_TIMES):
                factors.append(self._signed())
            elif self._take("/", "\\div"):
                self._link()
                top = factors[0] if len(factors) == 1 else ("product", tuple(factors))
                factors = [("quotient", top, self._signed())]
            elif self._begins_factor():
                factors = _with_mixed_number([*factors, self._implicit(factors[-1])])
            else:
                return factors[0] if len(factors) == 1 else ("product", tuple(factors))

    def _signed(self) -> Tree:
        if self._take("-"):
            return ("negative", self._signed_again())
        if self._take("+"):
            return self._signed_again()
        return self._power()

    def _signed_again(self) -> Tree:
        self._enter()
        tree = self._signed()
        self._depth -= 1
        return tree

    def _implicit(self, before: Tree) -> Tree:
        if self._text[self._at].isdigit() or self._text[self._at] == ".":
            if before[0] == "number":
                raise UnreadableError("two numbers stand side by side")
            if before[0] in ("symbol", "power"):
                raise UnreadableError("a number follows a name without a sign")
        return self._power()

    def _begins_factor(self) -> bool:
        self._space()
        rest = self._text[self._at : self._at + 1]
        if not rest:
            return False
        if rest == "|":
            return self._bars == 0
        if rest == "\\":
            command = _COMMAND.match(self._text, self._at)
            return command is not None and command[1] in _FACTORS
        return rest.isalnum() or rest in "({[."

    def _power(self) -> Tree:
        return self._powers_of(self._primary())

    def _powers_of(self, base: Tree) -> Tree:
        while True:
            if self._take("!"):
                if self._peek("!"):
                    raise UnreadableError("a double factorial is not known")
                self._link()
                base = ("factorial", base)
            elif self._peek("^\\circ", "^{\\circ}", "^\\degree", "\\degree"):
                self._take("^\\circ", "^{\\circ}", "^\\degree", "\\degree")
                self._link()
                base = ("product", (base, ("constant", "degree")))
            elif self._take("^"):
                return ("power", base, self._exponent())
            else:
                return base

    def _exponent(self) -> Tree:
        self._enter()
        if self._take("-"):
            tree: Tree = ("negative", self._exponent())
        elif self._peek("{"):
            tree = self._bracketed("{")
            if self._peek("^", "!"):
                raise UnreadableError("two exponents, or what is raised is not clear")
        else:
            tree = self._power()
        self._depth -= 1
        return tree

    def _bracketed(self, opening: str) -> Tree:
        self._need(opening)
        bars, self._bars = self._bars, 0
        tree = self._sum()
        self._bars = bars
        self._need(_CLOSING[opening])
        return tree

    def _primary(self) -> Tree:
        self._space()
        character = self._text[self._at : self._at + 1]
        if character and (character.isdigit() or character == "."):
            return self._number()
        if character in _CLOSING:
            return self._bracketed(character)
        if character == "|":
            return self._between("|", "|", "abs")
        if character == "\\":
            return self._command()
        if character.isalpha() and character.isascii():
            return self._word()
        raise UnreadableError(f"{character or 'the end'!r} stands where a value should")

    def _between(self, opening: str, closing: str, function: str) -> Tree:
        self._need(opening)
        bars, self._bars = self._bars, 1
        tree = self._sum()
        self._bars = bars
        self._need(closing)
        return ("call", function, tree)

    def _number(self) -> Tree:
        match = _NUMBER.match(self._text, self._at)
        if match is None or len(match[0]) > MAX_NUMBER_DIGITS or not match[0].isascii():
            raise UnreadableError("a number cannot be read")
        self._at = match.end()
        if match["period"]:
            return ("number", _repeating(match["head"], match["period"]))
        index = _INDEX.match(self._text, self._at)
        if index:
            self._at = index.end()
            return ("digits", match[0], index[1] or index[2])
        value = _decimal(match[0])
        power = _SCIENTIFIC.match(self._text, self._at)
        if power:
            self._at = power.end()
            value *= Fraction(10) ** int(power[1])
        return ("number", value)

    def _word(self) -> Tree:
        match = _WORD.match(self._text, self._at)
        assert match is not None
        run = match[0]
        if run in _ENGLISH:
            raise UnreadableError(f"{run!r} is a word")
        for name in _PLAIN:
            if run.startswith(name):
                self._at += len(name)
                return self._named(name)
        inner = min((run.find(name) for name in _PLAIN if len(name) > 2 and name in run), default=0)
        if (inner or len(run)) > MAX_WORD:
            raise UnreadableError(f"{run!r} is a word")
        self._at += 1
        return self._symbol(run[0])

    def _symbol(self, name: str) -> Tree:
        if self._take("'"):
            name += "'"
        applied = _APPLIED.match(self._text, self._at) if name in "fgFG" else None
        if applied:
            self._at = applied.end()
            return ("symbol", name + applied[0])
        index = _INDEX.match(self._text, self._at)
        if index:
            self._at = index.end()
            name += "_" + (index[1] or index[2]).replace(" ", "")
        elif name in ("e", "i"):
            return ("constant", name)
        return ("symbol", name)

    def _command(self) -> Tree:
        match = _COMMAND.match(self._text, self._at)
        if match is None:
            raise UnreadableError("a stray backslash")
        name = match[1]
        accent = _ACCENTED.match(self._text, self._at)
        if accent:
            self._at = accent.end()
            mark = "bar" if accent["mark"] == "overline" else accent["mark"]
            return ("symbol", f"{mark} {accent['name'] or accent['letter']}")
        brackets = {"lfloor": "floor", "lceil": "ceil", "lvert": "abs"}
        if name in brackets:
            return self._between(f"\\{name}", f"\\r{name[1:]}", brackets[name])
        self._at = match.end()
        if name == "frac":
            return ("quotient", self._group(), self._group())
        if name in ("binom", "dbinom", "tbinom"):
            return ("binomial", self._group(), self._group())
        return self._named(name)

    def _named(self, name: str) -> Tree:
        """What a name, as a command or plain, stands for."""
        name = _SPELLINGS.get(name, name)
        if name == "pi":
            return ("constant", "pi")
        if name in _GREEK:
            return self._symbol(f"\\{_SAME_LETTER.get(name, name)}")
        if name == "sqrt":
            degree: Tree = ("number", Fraction(2))
            if self._peek("["):
                degree = self._bracketed("[")
            return ("root", degree, self._group())
        if name == "cbrt":
            return ("root", ("number", Fraction(3)), self._group())
        if name in ("log", "lg") or name in FUNCTIONS:
            return self._call(name)
        raise UnreadableError(f"\\{name} is not known")

    def _group(self) -> Tree:
        """A command's argument: braces, brackets, or one token."""
        opening = self._peek("{", "(")
        if opening:
            return self._bracketed(opening)
        character = self._text[self._at : self._at + 1]
        if character.isascii() and character.isdigit():
            self._at += 1
            return ("number", Fraction(int(character)))
        if character.isascii() and character.isalpha():
            self._at += 1
            return ("constant" if character in "ei" else "symbol", character)
        if character == "\\":
            self._enter()
            tree = self._command()
            self._depth -= 1
            return tree
        raise UnreadableError("an argument is missing")

    def _call(self, name: str) -> Tree:
        r"""A function's application: ``\sin^2 x``, ``\log_2 8``, ``ln(a)``, ``\cos 2x``."""
        self._enter()
        base: Tree | None = ("number", Fraction(10)) if name == "lg" else None
        if name == "log" and self._take("_"):
            base = self._group()
        power = self._exponent() if self._take("^") else None
        argument = self._argument()
        self._depth -= 1
        tree: Tree
        if name in ("log", "lg"):
            tree = ("log", base, argument)
        elif power == ("negative", ("number", Fraction(1))) and f"arc{name}" in FUNCTIONS:
            return ("call", f"arc{name}", argument)
        else:
            tree = ("call", name, argument)
        return tree if power is None else ("power", tree, power)

    def _argument(self) -> Tree:
        opening = self._peek("(", "{", "[")
        if opening:
            return self._bracketed(opening)
        factors = [self._negative_or_power()]
        while self._begins_factor() and not self._peek("(", "[", "{") and not self._at_function():
            factors.append(self._implicit(factors[-1]))
        if len(factors) == 1:
            return factors[0]
        return ("product", tuple(_with_mixed_number(factors)))

    def _negative_or_power(self) -> Tree:
        return ("negative", self._power()) if self._take("-") else self._power()

    def _at_function(self) -> bool:
        match = re.compile(r"\\?([a-zA-Z]+)").match(self._text, self._at)
        return match is not None and any(
            match[1].startswith(name) for name in (*FUNCTIONS, *_SPELLINGS, "log", "lg")
        )


def _with_mixed_number(factors: list[Tree]) -> list[Tree]:
    r"""Read ``2\frac{1}{2}`` as 5/2, not as a product."""
    if len(factors) < 2 or factors[-1][0] != "quotient" or factors[-2][0] != "number":
        return factors
    _, top, bottom = factors[-1]
    if top[0] != "number" or bottom[0] != "number":
        return factors
    whole, above, below = factors[-2][1], top[1], bottom[1]
    if any(value.denominator != 1 for value in (whole, above, below)) or not 0 < above < below:
        return factors
    return [*factors[:-2], ("number", whole + above / below)]


def _decimal(digits: str) -> Fraction:
    whole, _, decimals = digits.partition(".")
    return Fraction(int(whole + decimals or "0"), 10 ** len(decimals))


def _repeating(head: str, period: str) -> Fraction:
    whole, _, fixed = head.partition(".")
    value = Fraction(int(whole + fixed or "0"), 10 ** len(fixed))
    return value + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
