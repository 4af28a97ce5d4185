"""Commands in README.md and docs/ exist, with the options that are told; links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
from django.core.management import get_commands, load_command_class

from distiller.cli import app as distiller
from evaluator.cli import app as evaluator
from webapp.client.cli import app as retort

ROOT = Path(__file__).parents[2]
# What was true when it was written is not held to what is true now.
HISTORY = {"LOG.md"}
TEXTS = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md",
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in HISTORY),
]  # fmt: skip
LIBRARIES = {
    "python -m evaluator": evaluator, "python -m distiller": distiller, "scripts/retort": retort,
}  # fmt: skip
ENDS = r"[^`\n|#>]*"  # of a command: its line, the code that it stands in, a pipe, a comment


def _told(text: str, begin: str) -> Iterator[list[str]]:
    """The words of each command that begins so."""
    for words in re.findall(rf"{re.escape(begin)} ({ENDS})", text.replace("\\\n", " ")):
        yield words.split()


def _options(words: list[str]) -> set[str]:
    return {word.split("=")[0] for word in words if re.match("--[a-z]", word)} - {"--help"}


def _wrong_of_library(words: list[str], app: typer.Typer) -> set[str]:
    """The subcommand, or the options, that are not there."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if not hasattr(command, "commands") or not re.fullmatch("[a-z][a-z-]*", word):
            break
        if word not in command.commands:
            return {word}
        command = command.commands[word]
    return _options(words) - {o for p in command.params for o in (*p.opts, *p.secondary_opts)}


def _wrong_of_manage(words: list[str]) -> set[str]:
    name = words[0] if words else ""
    if not re.fullmatch("[a-z_]+", name):  # its row in the README's tree
        return set()
    if name not in get_commands():
        return {name}
    command = load_command_class(str(get_commands()[name]), name)
    usage = command.create_parser("manage.py", name).format_help()
    return {option for option in _options(words) if not re.search(rf"{option}\b", usage)}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_what_is_told_of_commands_is_true(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    wrong = [
        (begin, *each)
        for begin, app in LIBRARIES.items()
        for words in _told(text, begin)
        if (each := _wrong_of_library(words, app))
    ]
    wrong += [(*each,) for words in _told(text, "manage.py") if (each := _wrong_of_manage(words))]
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    told = re.findall(r"(?:`|^    )(?:[A-Z_]+=\S+ )?make ([a-z][a-z-]*)", text, re.MULTILINE)
    wrong += [("make", name) for name in told if name not in targets]
    assert not wrong


def test_commands_are_found_and_looked_at() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = [words for begin in (*LIBRARIES, "manage.py") for words in _told(readme, begin)]
    assert len(found) > 12
    assert _wrong_of_library(["runn"], evaluator) == {"runn"}
    assert _wrong_of_library(["run", "--benchmark", "x", "--modell=y"], evaluator) == {"--modell"}
    assert _wrong_of_library(["launch", "distil", "--none"], retort) == {"--none"}
    assert _wrong_of_manage(["upp"]) == {"upp"}
    assert _wrong_of_manage(["up", "--port", "1", "--ports"]) == {"--ports"}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists() or (heading and heading not in _headings(file)):
            wrong.append(target)
    assert not wrong


def _headings(path: Path) -> set[str]:
    """The names that a heading's link has: lower case, words joined by hyphens."""
    told = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in told}


def test_the_variables_of_the_readme_are_read() -> None:
    rows = re.findall(r"^\| (`[A-Z].*?) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`([A-Z_0-9]+)`", row)}
    assert len(told) > 20
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "webapp" / "config" / "settings.py", ROOT / "evaluator" / "signing.py")
    )
    assert {name for name in told if f'"{name}"' not in code} == set()
