"""What is mixed into a corpus beside the traces: chats from files, in stated proportions.

Torch-free. DeepSeek-R1's students read 600k reasoning and 200k general samples, three to one
(PROTOCOLS §5).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distiller.errors import CorpusError, InputError
from distiller.traces import is_text

_ROLES = ("system", "user", "assistant")
_FORMS = 'use {"messages": [{"role", "content"}, …]} or {"prompt", "response"}'


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation whose last answer is learnt; ``turns`` are all before it, the user's last."""

    id: str
    system: str | None
    turns: tuple[Mapping[str, str], ...]
    answer: str

    @property
    def asked(self) -> str:
        """All that the user says: what a benchmark's problem might stand in."""
        return "\n".join(turn["content"] for turn in self.turns if turn["role"] == "user")


def read_chats(path: Path, name: str) -> Iterator[Chat]:
    """The chats of a JSONL file (also .gz), a line each; ids are ``name:line``.

    Raises InputError naming file, line and remedy for anything else.
    """
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _chat(line, f"{path.name}: line {number}", f"{name}:{number}")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(
            f"corpus.general: {path} cannot be read ({error}); give a JSONL file, also .gz."
        ) from error


def file_hash(path: Path) -> str:
    """SHA-256 of a source's file. Raises InputError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"corpus.general: {path} cannot be read ({error.strerror}); give a JSONL file, also "
            ".gz."
        ) from error


def shares(
    available: Mapping[str, int], weights: Mapping[str, float], examples: int | None
) -> dict[str, int]:
    """How many examples of each source are used.

    Without ``examples`` the mix is as large as it can be with none used twice; with it, each source
    gives its share of that number (largest remainders first). Raises CorpusError where a source is
    empty, or has fewer than its share.
    """
    for name, count in available.items():
        if not count:
            raise CorpusError(
                f"corpus: source {name!r} has no usable example; leave it out or give it some."
            )
    whole = sum(weights[name] for name in available)
    if examples is None:
        scale = min(available[name] / weights[name] for name in available)
        # Rounded down, so that no source is asked for more than it has; the scarcest gives all.
        counts = {
            name: min(available[name], int(scale * weights[name] + 1e-9)) for name in available
        }
    else:
        exact = {name: examples * weights[name] / whole for name in available}
        counts = {name: int(share) for name, share in exact.items()}
        by_remainder = sorted(available, key=lambda name: counts[name] - exact[name])
        for name in by_remainder[: examples - sum(counts.values())]:
            counts[name] += 1
    for name, count in counts.items():
        if not count:
            raise CorpusError(
                f"corpus: the proportions leave no example of source {name!r}; raise its weight, "
                "or give more of the other sources."
            )
        if count > available[name]:
            raise CorpusError(
                f"corpus.examples: {examples} need {count} of source {name!r}, which has "
                f"{available[name]}; lower corpus.examples or its weight, or give more of it."
            )
    return counts


def chosen(keys: Sequence[int], count: int) -> np.ndarray:
    """The positions, ascending, of the ``count`` smallest keys."""
    order = np.argsort(np.asarray(keys, dtype=np.uint64), kind="stable")
    return np.sort(order[:count])


def sampling_key(seed: int, source: str, problem_id: str, sample: int) -> int:
    """A number that depends on these alone: what is drawn depends on no order and no library."""
    text = f"{seed}\x1f{source}\x1f{problem_id}\x1f{sample}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _chat(line: str, where: str, key: str) -> Chat:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"corpus.general: {where} is not JSON ({error}); {_FORMS}.") from error
    if not isinstance(row, dict):
        raise InputError(f"corpus.general: {where} is no object; {_FORMS}.")
    if "messages" in row:
        messages = row["messages"]
    elif "prompt" in row and "response" in row:
        messages = [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["response"]},
        ]
    else:
        raise InputError(f"corpus.general: {where} is no chat; {_FORMS}.")
    return _from_messages(messages, where, key)


def _from_messages(messages: Any, where: str, key: str) -> Chat:
    if not isinstance(messages, list) or not messages:
        raise InputError(f"corpus.general: {where}: messages must be a list; {_FORMS}.")
    turns: list[dict[str, str]] = []
    for message in messages:
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if (
            role not in _ROLES
            or not isinstance(content, str)
            or not (content.strip() and is_text(content))
        ):
            raise InputError(
                f"corpus.general: {where}: a message needs a role ({', '.join(_ROLES)}) and "
                "content that is text and not empty; mend it or leave the row out."
            )
        turns.append({"role": role, "content": content})
    system = turns.pop(0)["content"] if turns[0]["role"] == "system" else None
    wanted = ["user", "assistant"] * (len(turns) // 2)
    if not turns or [turn["role"] for turn in turns] != wanted:
        raise InputError(
            f"corpus.general: {where}: after a system message at most, user and assistant must "
            "take turns, and the assistant's answer comes last; mend it or leave the row out."
        )
    return Chat(key, system, tuple(turns[:-1]), turns[-1]["content"])
