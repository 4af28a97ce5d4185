"""``python -m evaluator grade``: verdicts on answers in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeGuard

import typer

from evaluator import graders
from evaluator.benchmarks.choice_order import letter_of, places
from evaluator.commands.console import CPUS, check_writable, load_protocol
from evaluator.errors import InputError
from evaluator.graders.choice import LETTERS
from evaluator.graders.pool import GradeRequest, GraderPool
from evaluator.local import write_json_lines
from evaluator.protocol import PRESETS, Protocol
from evaluator.records import Completion, Outcome


def grade(
    source: Annotated[
        Path,
        typer.Option(
            "--input", help="JSONL rows {id, kind, gold, prediction or completion, options?}."
        ),
    ],
    output: Annotated[Path, typer.Option(help="JSONL rows {id, outcome, answer, cpu_seconds}.")],
    jobs: Annotated[int, typer.Option(min=1, help="Grader processes.")] = CPUS,
    protocol: Annotated[
        str,
        typer.Option(help=f"A preset ({', '.join(PRESETS)}) or a JSON or YAML file of its fields."),
    ] = "r1",
) -> None:
    """Grade answers: `prediction` is a final answer, `completion` a whole response.

    `kind` is math, integer or choice. For choice, `options` may give the order in which the options
    were shown, as [2, 0, 3, 1]: then the option shown as A is the third of the problem, and `gold`
    and `answer` are letters in the problem's own order. Or `options` gives their texts as shown,
    and `gold` one of these texts, or its letter there.
    """
    check_writable(output)
    ids, requests = _read_requests(source, load_protocol(protocol))
    rows = []
    with GraderPool(jobs) as pool:
        for row_id, verdict in zip(ids, pool.grade(requests), strict=True):
            rows.append(
                {
                    "id": row_id,
                    "outcome": str(verdict.outcome),
                    "answer": verdict.answer,
                    "cpu_seconds": verdict.cpu_seconds,
                }
            )
    write_json_lines(output, rows)
    for outcome in Outcome:
        if count := sum(row["outcome"] == outcome for row in rows):
            print(f"{outcome}\t{count}")


def _read_requests(path: Path, protocol: Protocol) -> tuple[list[Any], list[GradeRequest]]:
    ids: list[Any] = []
    requests: list[GradeRequest] = []
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"input: {path} cannot be read ({error}).") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not a JSON value ({error}).") from error
        if not isinstance(row, dict):
            raise InputError(f"{where}: not a JSON object.")
        ids.append(row.get("id"))
        requests.append(_request(row, where, protocol))
    if not requests:
        raise InputError(f"{path.name}: there is no row in it.")
    return ids, requests


def _request(row: dict[str, Any], where: str, protocol: Protocol) -> GradeRequest:
    if "id" not in row:
        raise InputError(f"{where}: id is missing.")
    kind = row.get("kind")
    kinds = [name for name in graders.names() if graders.get(name).compares]
    if kind not in kinds:
        raise InputError(
            f"{where}: kind {kind!r} is not one of {', '.join(kinds)} (programs have `judge`)."
        )
    gold = _written(row.get("gold"))
    if not isinstance(gold, str):
        raise InputError(f"{where}: gold must be a text.")
    order = row.get("options")
    if kind == "choice" and _are_option_texts(order):
        gold, order = _letter_shown(gold, order, where), None
    given = [name for name in ("prediction", "completion") if row.get(name) is not None]
    if len(given) > 1 or not ({"prediction", "completion"} & row.keys()):
        raise InputError(f"{where}: give either prediction or completion, as a text.")
    text = _written(row[given[0]]) if given else ""  # null: there was no answer
    if not isinstance(text, str):
        raise InputError(f"{where}: {given[0]} must be a text or null.")
    response = None
    if given == ["completion"]:
        response = Completion(problem_id=str(row["id"]), sample=0, text=text)
    return GradeRequest(
        kind=kind,
        gold=gold,
        prediction=None if response else text,
        completion=response,
        thinking=protocol.thinking,
        policy=protocol.policy,
        options=_options(order, where),
    )


def _written(value: object) -> object:
    """A number as the text that it is written as; all else as it is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return json.dumps(value) if number else value


def _are_option_texts(options: object) -> TypeGuard[list[str]]:
    """Whether these are the options themselves, and not an order."""
    return (
        isinstance(options, list)
        and bool(options)
        and all(isinstance(each, str) for each in options)
        and places(options) is None
    )


def _letter_shown(gold: str, options: list[str], where: str) -> str:
    """The letter under which the right one of ``options`` was shown."""
    texts = [text.strip() for text in options]
    if len(texts) > len(LETTERS):
        raise InputError(f"{where}: options: at most {len(LETTERS)} are known.")
    if texts.count(gold.strip()) > 1:
        raise InputError(f"{where}: options: two have the text of gold; give gold as a letter.")
    letter = letter_of(gold, texts)
    if letter is None:
        raise InputError(f"{where}: gold is none of the options; give its text or its letter.")
    return letter


def _options(order: object, where: str) -> tuple[int, ...]:
    """The order in which the options were shown: a permutation of 0 … n-1, or none."""
    if order is None or order == []:
        return ()
    found = places(order) if isinstance(order, list) else None
    if found is None:
        raise InputError(
            f"{where}: options must be the order shown, as [2, 0, 3, 1], or the options' texts; at "
            f"most {len(LETTERS)} are known."
        )
    return found
