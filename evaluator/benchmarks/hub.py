"""Problems from the Hugging Face hub, checked against what the benchmark is known to contain."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from evaluator import benchmarks
from evaluator.benchmarks.choice_order import LETTERS
from evaluator.benchmarks.files import read_problems
from evaluator.errors import InputError
from evaluator.records import Problem, content_hash


def answers_hash(problems: list[Problem]) -> str:
    """SHA-256 over the sorted reference answers: the same for every typography of the texts.

    Of multiple choice it is over the right options' texts: four letters would pin nothing.
    """
    return content_hash(sorted(map(_answer_text, problems)))


def _answer_text(problem: Problem) -> str:
    if not problem.options:
        return problem.answer
    return problem.options[LETTERS.index(problem.answer)]


def fetch(name: str) -> list[Problem]:
    """Download benchmark ``name`` and return its problems.

    Raises InputError where the benchmark is not on the hub, the hub cannot be reached, or what
    came is not the benchmark (count or reference answers differ).
    """
    spec = benchmarks.get(name)
    if spec.hub is None:
        raise InputError(f"benchmark: {name} has no download; give its problems as a file.")
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()  # type: ignore[no-untyped-call]  # its retries are told in full; we tell the end of them in a sentence
    try:
        _resolve(constants.ENDPOINT)
        path = hf_hub_download(
            spec.hub.repo, spec.hub.filename, repo_type="dataset", revision=spec.hub.revision
        )
    except Exception as error:  # the hub's client raises errors of four libraries
        raise InputError(
            f"{name}: {spec.hub.repo} could not be downloaded ({type(error).__name__}); "
            f"get the file elsewhere and run: import_benchmark {name} FILE"
        ) from error
    return checked(name, read_problems(Path(path), name))


def _resolve(endpoint: str) -> None:
    """Raise OSError at once where the hub's name is unknown: its client would retry for 25 s."""
    host = urlsplit(endpoint).hostname
    if not getproxies():  # a proxy resolves names for us
        socket.getaddrinfo(host, None)


def checked(name: str, problems: list[Problem]) -> list[Problem]:
    """Return ``problems`` if they are benchmark ``name``; raises InputError where they are not."""
    spec = benchmarks.get(name)
    if spec.problem_count is not None and len(problems) != spec.problem_count:
        raise InputError(
            f"{name}: {len(problems)} problems where {spec.problem_count} are known; "
            "give the whole set."
        )
    known = spec.answers_hash if spec.hub is None else spec.hub.answers_hash
    if known is not None and answers_hash(problems) != known:
        raise InputError(
            f"{name}: the reference answers are not the ones that this benchmark is known by; "
            "get its published file."
        )
    return problems
