"""From traces to a corpus: decontaminate, filter, encode; count every trace exactly once.

The traces are read once to index them and once in the order of their questions, so that memory
does not grow with their texts. What is written appears when it is complete.

A filter looks at one question's traces at most, so that questions can be filtered apart: every part
gathers the same material, sifts the questions whose first prompt is its own, and ``merge`` makes of
all parts' fates, in order, what ``refine`` makes in one go.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from distiller import corpus, decontamination, filters, sieve
from distiller.checks import Check
from distiller.corpus import Encoder
from distiller.decontamination import Contamination
from distiller.errors import InputError, disk_error
from distiller.filters.base import JudgeVerdict, Key, Reason, Trace
from distiller.filters.duplicates import Duplicates
from distiller.inputs import TraceIndex, lines, read_problems
from distiller.preflight import checks_of_corpus, require_passed
from distiller.recipe import Recipe
from distiller.sieve import Fate, Question, Settings
from distiller.similarity import near_pairs
from evaluator.records import Completion, Problem

OnProgress = Callable[[int, int], None]
KEPT, DROPPED, FUNNEL, CONTAMINATED = (
    "kept.jsonl", "dropped.jsonl", "funnel.json", "contaminated.json",
)  # fmt: skip
CORPUS_STEP = "length"


@dataclass(frozen=True, slots=True)
class Beside:
    """What may be known beside the traces, each from a file of its own."""

    guesses: Mapping[str, Sequence[Completion]] = field(default_factory=dict)
    judged: Mapping[Key, JudgeVerdict] = field(default_factory=dict)


@dataclass(slots=True)
class Funnel:
    """What became of the traces, step by step.

    Each step's ``kept`` plus ``dropped`` is the step before's ``kept``, and ``dropped`` is the sum
    of its reasons.
    """

    steps: Sequence[str]
    traces: int = 0
    _dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, step: str | None, reason: Reason) -> None:
        """Count one trace; ``step`` is None where it was kept."""
        self.traces += 1
        self.drop(step, reason)

    def drop(self, step: str | None, reason: Reason) -> None:
        """Note that a trace which was counted is dropped after all."""
        if step is not None and reason is not None:
            self._dropped.setdefault(step, Counter())[reason] += 1

    def to_json(self) -> dict[str, Any]:
        """``{traces, kept, dropped, reasons, steps: [{step, kept, dropped, reasons}]}``."""
        left, steps = self.traces, []
        reasons: Counter[str] = Counter()
        for name in self.steps:
            counts = self._dropped.get(name, Counter())
            left -= counts.total()
            reasons += counts
            steps.append(
                {
                    "step": name,
                    "kept": left,
                    "dropped": counts.total(),
                    "reasons": dict(sorted(counts.items())),
                }
            )
        return {
            "traces": self.traces,
            "kept": left,
            "dropped": reasons.total(),
            "reasons": dict(sorted(reasons.items())),
            "steps": steps,
        }


@dataclass(frozen=True, slots=True)
class Material:
    """Where the traces stand, and all that a filter may know of their prompts."""

    index: TraceIndex
    prompts: Sequence[Problem]
    recipe: Recipe
    clusters: NDArray[np.int64]  # (prompts,): see :func:`_clusters`
    contaminated: Sequence[Contamination]
    beside: Beside

    @classmethod
    def gather(
        cls,
        sources: Sequence[Path],
        *,
        prompts: Sequence[Problem],
        recipe: Recipe,
        benchmarks: Mapping[str, Sequence[Problem]],
        spool: Path,
        beside: Beside | None = None,
    ) -> Material:
        """Index the traces in ``sources``, by flat copies in the folder ``spool``, and the prompts.

        Raises InputError for a row that is no trace, or a filter that lacks what it needs.
        """
        index = TraceIndex.read(sources, prompts, spool)
        beside = beside or Beside()
        beside = Beside({**index.guesses, **beside.guesses}, beside.judged)
        _require_beside(recipe, beside)
        found = decontamination.find(prompts, benchmarks) if recipe.decontaminate else []
        return cls(index, prompts, recipe, _clusters(prompts, recipe), found, beside)

    def chosen(self, ids: Iterable[str]) -> NDArray[np.bool_]:
        """A mask of prompts, (prompts,): those whose question begins with a prompt of ``ids``."""
        wanted = frozenset(ids)
        first = np.array([prompt.id in wanted for prompt in self.prompts], dtype=np.bool_)
        mask: NDArray[np.bool_] = first[self.clusters]
        return mask

    def fates(
        self, settings: Settings, *, jobs: int, ids: Iterable[str] | None = None, after: int = 0
    ) -> Iterator[Fate]:
        """The fates of all traces, or of one part's, in order, but for the first ``after``."""
        chosen = None if ids is None else self.chosen(ids)
        questions = _questions(self, chosen)
        for question in questions:
            if after < len(question.traces):
                questions = chain([question], questions)
                break
            after -= len(question.traces)
        total = len(self.index) if chosen is None else self.index.count(chosen)
        fates = sieve.sift(questions, settings=settings, total=total, jobs=jobs)
        return islice(fates, after, None)


def settings_of(recipe: Recipe, beside: Beside | None = None) -> Settings:
    """What the recipe's filters do."""
    return Settings(
        recipe.filters,
        recipe.thinking,
        recipe.decontaminate,
        show_verdicts=beside is not None and bool(beside.judged),
    )


def refine(
    sources: Sequence[Path],
    *,
    prompts: Sequence[Problem],
    recipe: Recipe,
    benchmarks: Mapping[str, Sequence[Problem]],
    out: Path,
    jobs: int,
    base_model: Path | None = None,
    beside: Beside | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> dict[str, Any]:
    """Filter the traces in ``sources`` into the folder ``out``.

    Writes kept.jsonl, dropped.jsonl, funnel.json, contaminated.json where the recipe
    decontaminates, and with ``base_model`` (a folder: tokenizer and template) the corpus and
    preflight.json. Returns ``{"funnel"}``, and with a corpus ``"corpus"`` and ``"manifest_hash"``.
    Progress counts traces that were filtered and then those that were encoded. Raises InputError
    for a wrong filter or row, with ``out`` as it was, and CorpusError where nothing is left for the
    corpus; then what was counted stays readable.
    """
    encoder = None if base_model is None else Encoder(base_model, recipe)
    settings = settings_of(recipe, beside)
    with _made_whole(out) as part:
        material = Material.gather(
            sources, prompts=prompts, recipe=recipe, benchmarks=benchmarks, spool=part,
            beside=beside,
        )  # fmt: skip
        making = _Making(recipe, encoder, benchmarks, part, out)
        fates = material.fates(settings, jobs=jobs)
        making.list_contaminated(prompts, material.contaminated)
        making.make(fates, len(material.index), on_progress)
    return making.result()


def merge(
    fates: Iterable[Fate],
    *,
    traces: int,
    prompts: Sequence[Problem],
    recipe: Recipe,
    benchmarks: Mapping[str, Sequence[Problem]],
    out: Path,
    base_model: Path | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> dict[str, Any]:
    """Write what :func:`refine` writes, of so many ``traces`` whose fates were decided in parts."""
    encoder = None if base_model is None else Encoder(base_model, recipe)
    with _made_whole(out) as part:
        making = _Making(recipe, encoder, benchmarks, part, out)
        found = decontamination.find(prompts, benchmarks) if recipe.decontaminate else []
        making.list_contaminated(prompts, found)
        making.make(fates, traces, on_progress)
    return making.result()


class _Making:
    """The files that become of fates, in the folder ``part`` until they are complete."""

    def __init__(
        self,
        recipe: Recipe,
        encoder: Encoder | None,
        benchmarks: Mapping[str, Sequence[Problem]],
        part: Path,
        out: Path,
    ) -> None:
        self._recipe, self._encoder, self._benchmarks = recipe, encoder, benchmarks
        self._part, self._out = part, out
        self._funnel = Funnel([*settings_of(recipe).steps(), *([CORPUS_STEP] if encoder else [])])
        self._manifest_hash = ""
        self._checks: list[Check] = []

    def list_contaminated(self, prompts: Sequence[Problem], found: Sequence[Contamination]) -> None:
        """Write contaminated.json, where the recipe decontaminates."""
        if not self._recipe.decontaminate:
            return
        listed = {
            "prompts": len(prompts),
            "benchmarks": {name: len(problems) for name, problems in self._benchmarks.items()},
            "contaminated": [hit.to_json() for hit in found],
        }
        _write_json(self._part / CONTAMINATED, listed)

    def make(self, fates: Iterable[Fate], traces: int, on_progress: OnProgress) -> None:
        """Write the rest. Raises CorpusError; then what was counted is in its place already."""
        part, funnel = self._part, self._funnel
        total = traces * (2 if self._encoder else 1)
        _write_fates(fates, part, funnel, lambda done: on_progress(done, total))
        if self._encoder is not None:
            try:
                self._build_corpus(
                    self._encoder, lambda done: on_progress(min(traces + done, total), total)
                )
            except InputError:  # the corpus' own: what was counted is worth reading
                _write_json(part / FUNNEL, funnel.to_json())
                _put_in_place(part, self._out)
                raise
            on_progress(total, total)
        _write_json(part / FUNNEL, funnel.to_json())

    def _build_corpus(self, encoder: Encoder, on_progress: Callable[[int], None]) -> None:
        reasons = corpus.build(
            _read_kept(self._part / KEPT),
            encoder=encoder,
            recipe=self._recipe,
            out=self._part / "corpus",
            total=self._funnel.to_json()["kept"],
            benchmarks=self._benchmarks if self._recipe.decontaminate else None,
            on_progress=lambda done, _: on_progress(done),
        )
        _take_out(self._part, reasons, self._funnel)
        examples, manifest = corpus.read(self._part / "corpus")
        self._manifest_hash = corpus.manifest_hash(manifest)
        self._checks = checks_of_corpus(examples, encoder, self._recipe)
        _write_json(self._part / "preflight.json", [check.to_json() for check in self._checks])

    def result(self) -> dict[str, Any]:
        """See :func:`refine`. Raises InputError for a corpus that nothing can be trained on."""
        funnel = {"funnel": self._funnel.to_json()}
        if self._encoder is None:
            return funnel
        require_passed(self._checks)
        folder = str(self._out / "corpus")
        return {"corpus": folder, **funnel, "manifest_hash": self._manifest_hash}


def _require_beside(recipe: Recipe, beside: Beside) -> None:
    for rule in filters.create(recipe.filters):
        if rule.needs == "guesses" and not beside.guesses:
            raise InputError(
                f"filters: {rule.name} needs guesses: give a file of them (--guesses), or traces "
                'with rows of kind "guess".'
            )
        if rule.needs == "verdicts" and not beside.judged:
            raise InputError(
                f"filters: {rule.name}: unchecked: judge needs a judge's verdicts: give a file of "
                "them (--judged)."
            )


def _questions(material: Material, chosen: NDArray[np.bool_] | None) -> Iterator[Question]:
    """The traces by question: a problem and its near copies, where duplicates are looked for."""
    prompts, beside = material.prompts, material.beside
    bad = frozenset(hit.problem_id for hit in material.contaminated)
    for _, places in material.index.by_question(material.clusters, chosen):
        ids = {prompts[prompt].id for prompt, _ in places}
        yield Question(
            [(prompts[prompt], place) for prompt, place in places],
            contaminated=bad & ids,
            guesses={name: beside.guesses[name] for name in ids if name in beside.guesses},
            judged={
                key: beside.judged[key]
                for prompt, place in places
                if (key := (prompts[prompt].id, place.sample)) in beside.judged
            },
        )


def _clusters(prompts: Sequence[Problem], recipe: Recipe) -> NDArray[np.int64]:
    """For each prompt the place of the first one that it nearly copies, or its own."""
    own = np.arange(len(prompts), dtype=np.int64)
    rule = next((r for r in filters.create(recipe.filters) if isinstance(r, Duplicates)), None)
    if rule is None:
        return own
    first: dict[tuple[str, str], int] = {}
    for place, prompt in enumerate(prompts):
        key = (" ".join(prompt.problem.split()), prompt.answer)
        own[place] = first.setdefault(key, place)
    if rule.near:
        single = [place for place in range(len(prompts)) if own[place] == place]
        texts = [prompts[place].problem for place in single]
        for earlier, later in near_pairs(texts, rule.threshold, same_numbers=True):
            one, other = single[earlier], single[later]
            if own[other] == other and prompts[one].answer == prompts[other].answer:
                own[other] = own[one]
        own = own[own]
    return own


def _write_fates(
    fates: Iterable[Fate], part: Path, funnel: Funnel, on_done: Callable[[int], None]
) -> None:
    with (part / KEPT).open("wb") as kept, (part / DROPPED).open("wb") as dropped:
        for done, fate in enumerate(fates, start=1):
            funnel.count(fate.step, fate.reason)
            (kept if fate.step is None else dropped).write(fate.line)
            on_done(done)


def _read_kept(path: Path) -> Iterator[Trace]:
    for _, line in lines(path):
        yield Trace.from_json(json.loads(line))


def _take_out(part: Path, reasons: Sequence[Reason], funnel: Funnel) -> None:
    """Move what did not fit into the corpus from kept.jsonl to dropped.jsonl."""
    if not any(reasons):
        return
    rest = part / f"{KEPT}.rest"
    with (part / KEPT).open("rb") as rows, rest.open("wb") as kept, _appending(part) as dropped:
        for line, reason in zip(rows, reasons, strict=True):
            if reason is None:
                kept.write(line)
            else:
                row = json.loads(line) | {"reason": reason, "step": CORPUS_STEP}
                dropped.write(sieve.json_line(row))
                funnel.drop(CORPUS_STEP, reason)
    rest.replace(part / KEPT)


def _appending(part: Path) -> BinaryIO:
    return (part / DROPPED).open("ab")


@contextmanager
def _made_whole(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` whose files are moved there at the end; a failure leaves no trace."""
    part = out.with_name(f"{out.name}.part")
    try:
        if out.exists() and not out.is_dir():
            raise InputError(f"out: {out} is a file; name a folder.")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if part.exists():
            _put_in_place(part, out)
    except OSError as error:
        if (full := disk_error(error)) is not None:
            raise full from error
        raise InputError(
            f"out: {error.filename or out} cannot be written ({error.strerror or error}); "
            "choose another folder."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _put_in_place(part: Path, out: Path) -> None:
    """Move what was made into ``out``; what an earlier run left there of it goes."""
    out.mkdir(parents=True, exist_ok=True)
    for name in (KEPT, DROPPED, FUNNEL, CONTAMINATED, "preflight.json", "corpus"):
        made, old = part / name, out / name
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
        if made.exists():
            made.rename(old)


def load_benchmarks(files: Mapping[str, str]) -> dict[str, list[Problem]]:
    """Read ``{"name@hash8": problems JSONL}``; raises InputError naming an unreadable file."""
    return {name: read_problems(Path(path)) for name, path in files.items()}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
