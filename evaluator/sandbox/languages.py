"""The languages that programs may be written in: one row each, and how a row is built and run."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from evaluator.errors import InputError
from evaluator.sandbox import box, store
from evaluator.sandbox.box import BOX, Command
from evaluator.sandbox.errors import SandboxUnavailableError
from evaluator.sandbox.limits import MIB, Limits

MAX_SOURCE_BYTES = 1 * MIB
COMPILE_LIMITS = Limits(
    cpu_seconds=10.0,
    memory_bytes=1024 * MIB,
    wall_seconds=120.0,
    output_bytes=128 * MIB,
    tmp_bytes=256 * MIB,
    open_files=256,
    processes_allowed=True,
)
_MESSAGE_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Language:
    """A row of the table. ``{source}`` and ``{program}`` stand for the file's place inside.

    ``compile`` is a shell line that leaves the program in ``program`` of the working folder; None:
    the source itself is run. ``tags`` are what stands behind the three ticks of a code block.
    """

    name: str
    title: str
    package: str  # Debian's, named when the tool is missing
    tool: str
    suffix: str
    run: tuple[str, ...]
    compile: str | None = None
    tags: tuple[str, ...] = ()


def _cpp(standard: str, name: str, tags: tuple[str, ...]) -> Language:
    flags = f"-std=gnu++{standard} -O2 -pipe -DONLINE_JUDGE -fmax-errors=5 -w"
    return Language(
        name=name,
        title=f"C++{standard}",
        package="g++",
        tool="/usr/bin/g++",
        suffix=".cpp",
        compile=f"/usr/bin/g++ {flags} -o program {{source}} </dev/null",
        run=("{program}",),
        tags=tags,
    )


_LANGUAGES = (
    _cpp(
        "17",
        "cpp",
        ("cpp", "c++", "cxx", "cc", "g++", "cpp17", "c++17", "cpp14", "c++14", "cpp11", "c++11"),
    ),
    _cpp("20", "cpp20", ("cpp20", "c++20")),
    Language(
        name="python",
        title="Python 3",
        package="python3",
        tool="/usr/bin/python3",
        suffix=".py",
        run=("/usr/bin/python3", "-s", "{program}"),
        tags=("python", "python3", "py", "py3"),
    ),
    Language(
        name="pypy",
        title="PyPy 3",
        package="pypy3",
        tool="/usr/bin/pypy3",
        suffix=".py",
        run=("/usr/bin/pypy3", "-s", "{program}"),
        tags=("pypy", "pypy3"),
    ),
)
LANGUAGES = {language.name: language for language in _LANGUAGES}


@dataclass(frozen=True, slots=True)
class Program:
    """Something that can be run: a command and the files it needs."""

    command: Command

    def with_arguments(self, arguments: tuple[str, ...], files: dict[str, Path]) -> Command:
        """The command with more arguments and files."""
        return Command((*self.command.arguments, *arguments), {**self.command.files, **files})


@dataclass(frozen=True, slots=True)
class CompileError:
    """Why a source is no program: the compiler's first words."""

    message: str


def get(name: str) -> Language:
    """The language called ``name``; raises InputError naming the known ones, and
    SandboxUnavailableError naming the package where its tool is missing.
    """
    if name not in LANGUAGES:
        raise InputError(f"language: none is called {name!r}; known: {', '.join(LANGUAGES)}.")
    language = LANGUAGES[name]
    if shutil.which(language.tool) is None:
        raise SandboxUnavailableError(
            f"language: {language.tool} is missing; install the package {language.package}."
        )
    return language


def by_tag(tag: str) -> Language | None:
    """The language that a code block's tag names, or None."""
    return next((row for row in _LANGUAGES if tag.lower() in row.tags), None)


@functools.cache
def _tool_version(tool: str) -> str:
    done = subprocess.run(
        [tool, "--version"], env={"PATH": os.environ.get("PATH", os.defpath)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.partition("\n")[0]


@functools.lru_cache(maxsize=512)
def _compile_errors(key: str) -> list[CompileError]:
    """A cell for the error of a source that does not compile: so that it is tried only once."""
    del key
    return []


def build(language: Language, source: str) -> Program | CompileError:
    """Compile ``source``, or take what an earlier call made of the same one.

    Raises SandboxError where the compiler could not be run.
    """
    try:
        data = source.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a model wrote half a character, which no file can hold
        data = source.encode("utf-8", "replace")
    if len(data) > MAX_SOURCE_BYTES:
        return CompileError(f"the source is longer than {MAX_SOURCE_BYTES} bytes")
    if language.compile is None:
        path = store.private_folder() / f"program-{store.digest(data)}{language.suffix}"
        if not store.touch(path):
            store.trim()
        return _program(language, store.keep(path.name, data))
    key = store.digest(data, language.compile, _tool_version(language.tool))
    path = store.private_folder() / f"program-{key}"
    if store.touch(path):
        return _program(language, path)
    known = _compile_errors(key)
    if known:
        return known[0]
    made = _compile(language, data, path.name)
    if isinstance(made, CompileError):
        known.append(made)
        return made
    return _program(language, made)


def _program(language: Language, path: Path) -> Program:
    name = "program" if language.compile else f"main{language.suffix}"
    words = tuple(word.replace("{program}", f"{BOX}/{name}") for word in language.run)
    return Program(Command(words, {name: path}))


def _compile(language: Language, data: bytes, name: str) -> Path | CompileError:
    """The program comes out through standard output: nothing of the host is writable inside."""
    assert language.compile is not None
    inside = f"{BOX}/main{language.suffix}"
    # The source's place is an argument of the shell, so that it is the same without isolation.
    line = language.compile.replace("{source}", '"$1"') + " 1>&2 && exec cat program"
    shell = ("/bin/sh", "-c", f'cd "$HOME" && {line}', "sh", inside)
    with store.shared({f"main{language.suffix}": data}) as files:
        result = box.execute(Command(shell, files), COMPILE_LIMITS)
    if not result.succeeded or not result.stdout:
        words = result.stderr.decode(errors="replace").replace(f"{BOX}/", "").strip()
        if result.end.value != "exit":
            words = f"the compiler ran into its limits ({result.end})\n{words}"
        return CompileError(words[:_MESSAGE_CHARACTERS] or "the compiler made no program")
    store.trim()
    return store.keep(name, result.stdout, executable=True)
