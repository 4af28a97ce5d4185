"""The corpus: token ids with a loss mask on disk, and a manifest. Torch-free, memory flat.

A corpus folder holds

- ``tokens.bin``: the token ids of all examples, one after another, int32 little-endian;
- ``rows.bin``: a record of :data:`ROW` per example: where it begins and ends, where its loss mask
  begins (all from there to its end carries loss), its source, whether it was cut;
- ``keys.jsonl``: a line ``[problem id, sample]`` per example;
- ``manifest.json``: hashes of all that went in and came out, counts, lengths, shares per source.
  The same inputs give the same manifest, byte for byte, whatever the folders are called.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from distiller import decontamination, manifests, mixing
from distiller.encoding import Encoder, Example, Rendered
from distiller.errors import CorpusError
from distiller.filters.base import Reason, Trace
from distiller.manifests import manifest_hash, token_histogram
from distiller.recipe import ChatSource, Recipe
from evaluator.records import Problem, canonical_json

__all__ = [
    "Corpus",
    "Encoder",
    "Example",
    "build",
    "manifest_hash",
    "read",
    "summary",
    "token_histogram",
]

TOKENS, ROWS, KEYS, MANIFEST = "tokens.bin", "rows.bin", "keys.jsonl", "manifest.json"
TRACES = "traces"  # the name of the source that the traces are
ROW = np.dtype(
    [
        ("start", "<i8"),  # token offset in tokens.bin
        ("key", "<i8"),  # byte offset in keys.jsonl
        ("tokens", "<i4"),
        ("prompt_tokens", "<i4"),
        ("source", "<i2"),
        ("cut", "<i2"),
    ]
)
OnProgress = Callable[[int, int], None]


class Corpus(Sequence[Example]):
    """A corpus folder, mapped into memory; an example is read when it is asked for."""

    def __init__(self, folder: Path, sources: Sequence[str]) -> None:
        self.rows: np.ndarray = np.fromfile(folder / ROWS, dtype=ROW)
        self._tokens = np.memmap(folder / TOKENS, dtype="<i4", mode="r")
        self._keys = folder / KEYS
        self._sources = tuple(sources)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int32, (examples,)."""
        return np.asarray(self.rows["tokens"])

    @property
    def supervised(self) -> np.ndarray:
        """Tokens of each example that carry loss, int32, (examples,)."""
        return np.asarray(self.rows["tokens"] - self.rows["prompt_tokens"])

    @property
    def last_tokens(self) -> np.ndarray:
        """The last token id of each example, int32, (examples,)."""
        return np.asarray(self._tokens[self.rows["start"] + self.rows["tokens"] - 1])

    def tokens(self, index: int) -> np.ndarray:
        """The token ids of one example, int32, (T,), not copied."""
        row = self.rows[index]
        return np.asarray(self._tokens[row["start"] : row["start"] + row["tokens"]])

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        row = self.rows[index]
        with self._keys.open("rb") as file:
            file.seek(int(row["key"]))
            problem_id, sample = json.loads(file.readline())
        ids = tuple(self.tokens(index).tolist())
        source = self._sources[row["source"]]
        return Example(problem_id, sample, ids, int(row["prompt_tokens"]), source, bool(row["cut"]))


def read(folder: Path) -> tuple[Corpus, dict[str, Any]]:
    """The examples and the manifest of a corpus folder.

    Raises CorpusError when it is missing, damaged, or carries no supervised token.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest.get("schema") != manifests.SCHEMA_VERSION:
            raise CorpusError(
                f"corpus: {folder} was written by another version "
                f"(schema {manifest.get('schema')!r}); build it again."
            )
        for name, digest in manifest["files"].items():
            if _sha256(folder / name) != digest:
                raise CorpusError(f"corpus: {name} is not the file of {MANIFEST}; build it again.")
        corpus = Corpus(folder, [source["name"] for source in manifest["sources"]])
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CorpusError(f"corpus: {folder} cannot be read ({error}); build it again.") from error
    if not len(corpus) or not int(corpus.supervised.sum()):
        raise CorpusError(f"corpus: {folder.name} has no supervised tokens; build it again.")
    return corpus, manifest


def build(
    traces: Iterable[Trace],
    *,
    encoder: Encoder,
    recipe: Recipe,
    out: Path,
    total: int | None = None,
    benchmarks: Mapping[str, Sequence[Problem]] | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> list[Reason]:
    """Write the corpus folder ``out`` and return, per trace, None or why it is not in it.

    The reasons are ``too_long`` (more tokens than ``training.max_length_tokens``, and the recipe
    does not truncate), ``prompt_too_long`` (no room for a response), ``ending_inside`` (the ending
    token stands in the middle), ``turn_inside`` (another token that makes a turn does) and
    ``not_sampled`` (the proportions leave it out). Chats that hold a problem of ``benchmarks`` are
    dropped. Raises CorpusError for an empty corpus, impossible proportions or a full disk, and
    InputError for an unreadable source; nothing is left then.
    """
    if total is None and isinstance(traces, Sequence):
        total = len(traces)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    builder = _Builder(encoder, recipe, benchmarks or {})
    try:
        part.mkdir(parents=True)
        manifest = builder.write(traces, part, lambda done: on_progress(done, total or done))
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
        shutil.rmtree(out, ignore_errors=True)
        os.rename(part, out)  # noqa: PTH104
    except OSError as error:
        raise CorpusError(
            f"corpus: {out} cannot be written ({error.strerror or error}); make room there, or "
            "choose another folder."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return builder.reasons


def summary(manifest: Mapping[str, Any]) -> list[str]:
    """A line per source: how many of it were offered and used, and what part of the whole it is."""
    lines = []
    for source in manifest["sources"]:
        left = {name: count for name, count in source["dropped"].items() if count}
        dropped = "".join(f", {name.replace('_', ' ')} {count}" for name, count in left.items())
        cut = f", {source['truncated']} truncated" if source["truncated"] else ""
        lines.append(
            f"{source['name']}: {source['used']} of {source['offered']} used "
            f"({source['share']:.1%} of the examples, {source['token_share']:.1%} of the tokens)"
            f"{cut}{dropped}"
        )
    return lines


@dataclass(slots=True)
class _Tally:
    """What became of one source's examples."""

    name: str
    weight: float
    digest: Any = field(default_factory=hashlib.sha256)
    offered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)  # of its usable examples in the staged rows

    def drop(self, reason: str) -> str:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        return reason


class _Writer:
    """Appends examples to a folder's three files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._files = contextlib.ExitStack()
        self._tokens, self._rows, self._keys = (
            self._files.enter_context((folder / name).open("wb")) for name in (TOKENS, ROWS, KEYS)
        )
        self._start = 0
        self._key = 0
        self.count = 0

    def add(self, ids: np.ndarray, key: bytes, prompt_tokens: int, source: int, cut: int) -> None:
        """Append one example; ``ids`` is int32, (T,)."""
        self._tokens.write(ids.astype("<i4", copy=False).tobytes())
        row = (self._start, self._key, len(ids), prompt_tokens, source, cut)
        self._rows.write(np.array(row, dtype=ROW).tobytes())
        self._keys.write(key)
        self._start += len(ids)
        self._key += len(key)
        self.count += 1

    def close(self) -> None:
        """Flush and close."""
        self._files.close()


class _Builder:
    """One building: encode every source to disk, then keep what the proportions want."""

    def __init__(
        self, encoder: Encoder, recipe: Recipe, benchmarks: Mapping[str, Sequence[Problem]]
    ) -> None:
        self._encoder, self._recipe, self._benchmarks = encoder, recipe, benchmarks
        self.reasons: list[Reason] = []  # per trace
        plan = recipe.corpus
        self._tallies = [
            _Tally(TRACES, plan.traces_weight),
            *(_Tally(source.name, source.weight) for source in plan.general),
        ]
        self._sampling: list[int] = []  # a key per staged example
        self._trace_of: list[int] = []  # the staged traces' positions among the traces

    def write(
        self, traces: Iterable[Trace], part: Path, on_progress: Callable[[int], None]
    ) -> dict[str, Any]:
        """Write the three files into ``part`` and return the manifest."""
        staging = part / "staged"
        with contextlib.closing(_Writer(staging)) as writer:
            self._stage_traces(traces, writer, on_progress)
            for index, source in enumerate(self._recipe.corpus.general, start=1):
                self._stage_chats(source, index, writer)
            staged = writer.count
        if not staged:
            raise CorpusError(_nothing_left(self._tallies[0], self._recipe))
        corpus = Corpus(staging, [tally.name for tally in self._tallies])
        if not int((corpus.supervised - 1 + corpus.rows["cut"]).sum()):
            raise CorpusError("corpus: no token but the ending one carries loss: empty responses.")
        kept = self._kept(len(corpus))
        if len(kept) == len(corpus):
            for name in (TOKENS, ROWS, KEYS):
                (staging / name).rename(part / name)
        else:
            _copy(staging, corpus, kept, part)
        shutil.rmtree(staging)
        return self._manifest(part)

    def _stage_traces(
        self, traces: Iterable[Trace], writer: _Writer, on_progress: Callable[[int], None]
    ) -> None:
        tally = self._tallies[0]

        def rendered() -> Iterator[Rendered]:
            for trace in traces:
                row = [*trace.completion.key, trace.problem.problem, trace.text]
                tally.digest.update(canonical_json([*row, trace.completion.reasoning]).encode())
                yield self._encoder.render(trace)

        for position, example in enumerate(self._encoder.examples(rendered(), source=TRACES)):
            reason = self._stage(example, tally, 0, writer)
            self.reasons.append(reason)
            if reason is None:
                self._trace_of.append(position)
            on_progress(position + 1)

    def _stage_chats(self, source: ChatSource, index: int, writer: _Writer) -> None:
        tally, path = self._tallies[index], Path(source.file)
        tally.digest.update(mixing.file_hash(path).encode())
        bad = self._contaminated(path, source.name)

        def rendered() -> Iterator[Rendered]:
            for chat in mixing.read_chats(path, source.name):
                if chat.id in bad:
                    tally.offered += 1
                    tally.drop("contaminated")
                else:
                    yield self._encoder.render_chat(chat)

        for example in self._encoder.examples(rendered(), source=source.name):
            self._stage(example, tally, index, writer)

    def _contaminated(self, path: Path, name: str) -> set[str]:
        if not self._recipe.decontaminate or not self._benchmarks:
            return set()
        asked = [Problem(chat.id, chat.asked, "") for chat in mixing.read_chats(path, name)]
        return {hit.problem_id for hit in decontamination.find(asked, self._benchmarks)}

    def _stage(self, example: Example, tally: _Tally, index: int, writer: _Writer) -> Reason:
        """Write one example, cut where the recipe says so; or say why it cannot be used."""
        tally.offered += 1
        limit, cut = self._recipe.training.max_length_tokens, False
        ids = np.array(example.input_ids, dtype="<i4")
        if (ids[example.prompt_tokens : -1] == self._encoder.end_id).any():
            return tally.drop("ending_inside")
        if not self._encoder.turn_ids.isdisjoint(example.input_ids[example.prompt_tokens : -1]):
            return tally.drop("turn_inside")
        if len(ids) > limit:
            if example.prompt_tokens >= limit:
                return tally.drop("prompt_too_long")
            if self._recipe.corpus.too_long == "drop":
                return tally.drop("too_long")
            ids, cut = ids[:limit], True
        key = json.dumps([example.problem_id, example.sample], ensure_ascii=False) + "\n"
        tally.places.append(writer.count)
        self._sampling.append(
            mixing.sampling_key(
                self._recipe.corpus.seed, tally.name, example.problem_id, example.sample
            )
        )
        writer.add(ids, key.encode(), example.prompt_tokens, index, int(cut))
        return None

    def _kept(self, staged: int) -> np.ndarray:
        """Positions, ascending, of the staged examples that the proportions want."""
        plan = self._recipe.corpus
        if not plan.general and plan.examples is None:
            return np.arange(staged)
        counts = mixing.shares(
            {tally.name: len(tally.places) for tally in self._tallies},
            {tally.name: tally.weight for tally in self._tallies},
            plan.examples,
        )
        kept = []
        for tally in self._tallies:
            keys = [self._sampling[place] for place in tally.places]
            kept.append(np.array(tally.places)[mixing.chosen(keys, counts[tally.name])])
        wanted = set(kept[0].tolist())
        for place, position in zip(self._tallies[0].places, self._trace_of, strict=True):
            if place not in wanted:
                self.reasons[position] = "not_sampled"
        return np.sort(np.concatenate(kept))

    def _manifest(self, part: Path) -> dict[str, Any]:
        corpus = Corpus(part, [tally.name for tally in self._tallies])
        lengths, supervised, sources = corpus.lengths, corpus.supervised, corpus.rows["source"]
        counted = []
        for index, tally in enumerate(self._tallies):
            mine = sources == index
            used = int(mine.sum())
            counted.append(
                {
                    "name": tally.name,
                    "weight": tally.weight,
                    "sha256": tally.digest.hexdigest(),
                    "offered": tally.offered,
                    "used": used,
                    "dropped": dict(sorted(tally.dropped.items()))
                    | {"not_sampled": len(tally.places) - used},
                    "truncated": int(corpus.rows["cut"][mine].sum()),
                    "tokens": int(lengths[mine].sum()),
                    "supervised_tokens": int(supervised[mine].sum()),
                    "share": used / len(corpus),
                    "token_share": float(lengths[mine].sum() / lengths.sum()),
                }
            )
        return {
            **manifests.counts(part / KEYS, lengths, supervised),
            "too_long": self._recipe.corpus.too_long,
            "truncated": int(corpus.rows["cut"].sum()),
            "sources": counted,
            **manifests.origin(self._encoder, self._recipe),
            "files": {name: _sha256(part / name) for name in (TOKENS, ROWS, KEYS)},
        }


def _copy(staging: Path, corpus: Corpus, kept: np.ndarray, part: Path) -> None:
    """Write the kept examples into ``part``, in order."""
    with contextlib.closing(_Writer(part)) as writer, (staging / KEYS).open("rb") as keys:
        for index in kept:
            row = corpus.rows[index]
            keys.seek(int(row["key"]))
            writer.add(
                corpus.tokens(int(index)), keys.readline(),
                int(row["prompt_tokens"]), int(row["source"]), int(row["cut"]),
            )  # fmt: skip


def _nothing_left(traces: _Tally, recipe: Recipe) -> str:
    if not traces.offered:
        return "corpus: empty: no trace passed the filters; relax them, or draw more traces."
    reasons = ", ".join(f"{code.replace('_', ' ')} {n}" for code, n in traces.dropped.items())
    return (
        f"corpus: empty: none of {traces.offered} traces that passed the filters fits into "
        f"{recipe.training.max_length_tokens} tokens ({reasons}); raise "
        "training.max_length_tokens or relax the filters."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
