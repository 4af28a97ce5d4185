"""From traces to a corpus: decontaminate, filter, encode; count every trace exactly once.

The traces are read once to index them and once in the order of their questions, so that memory
does not grow with their texts. What is written appears when it is complete.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from distiller import corpus, decontamination, filters, sieve
from distiller.corpus import Encoder
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
    settings = Settings(
        recipe.filters,
        recipe.thinking,
        recipe.decontaminate,
        show_verdicts=beside is not None and bool(beside.judged),
    )
    funnel = Funnel([*settings.steps(), *([CORPUS_STEP] if encoder else [])])
    with _made_whole(out) as part:
        index = TraceIndex.read(sources, prompts, part)
        total = len(index) * (2 if encoder else 1)
        bad: frozenset[str] = frozenset()
        if recipe.decontaminate:
            found = decontamination.find(prompts, benchmarks)
            listed = {
                "prompts": len(prompts),
                "benchmarks": {name: len(problems) for name, problems in benchmarks.items()},
                "contaminated": [hit.to_json() for hit in found],
            }
            _write_json(part / CONTAMINATED, listed)
            bad = frozenset(hit.problem_id for hit in found)
        questions = _questions(index, prompts, recipe, bad=bad, beside=beside or Beside())
        fates = sieve.sift(questions, settings=settings, total=len(index), jobs=jobs)
        _write_fates(fates, part, funnel, lambda done: on_progress(done, total))
        if encoder is None:
            _write_json(part / FUNNEL, funnel.to_json())
            return {"funnel": funnel.to_json()}
        kept = funnel.to_json()["kept"]
        try:
            reasons = corpus.build(
                _read_kept(part / KEPT),
                encoder=encoder,
                recipe=recipe,
                out=part / "corpus",
                total=kept,
                benchmarks=benchmarks if recipe.decontaminate else None,
                on_progress=lambda done, _: on_progress(min(len(index) + done, total), total),
            )
            _take_out(part, reasons, funnel)
        except InputError:  # the corpus' own: what was counted is worth reading
            _write_json(part / FUNNEL, funnel.to_json())
            _put_in_place(part, out)
            raise
        _write_json(part / FUNNEL, funnel.to_json())
        on_progress(total, total)
        examples, manifest = corpus.read(part / "corpus")
        checks = checks_of_corpus(examples, encoder, recipe)
        _write_json(part / "preflight.json", [check.to_json() for check in checks])
    require_passed(checks)
    return {
        "corpus": str(out / "corpus"),
        "funnel": funnel.to_json(),
        "manifest_hash": corpus.manifest_hash(manifest),
    }


def _questions(
    index: TraceIndex,
    prompts: Sequence[Problem],
    recipe: Recipe,
    *,
    bad: frozenset[str],
    beside: Beside,
) -> Iterator[Question]:
    """The traces by question: a problem and its near copies, where duplicates are looked for."""
    guesses = {**index.guesses, **beside.guesses}
    for rule in filters.create(recipe.filters):
        if rule.name == "guessable" and not guesses:
            raise InputError(
                "filters: guessable needs guesses: give a file of them (--guesses), or traces with "
                'rows of kind "guess".'
            )
        if getattr(rule, "unchecked", None) == "judge" and not beside.judged:
            raise InputError(
                "filters: answer: unchecked: judge needs a judge's verdicts: give a file of them "
                "(--judged)."
            )
    for _, places in index.by_question(_clusters(prompts, recipe)):
        ids = {prompts[prompt].id for prompt, _ in places}
        yield Question(
            [(prompts[prompt], place) for prompt, place in places],
            contaminated=bad & ids,
            guesses={name: guesses[name] for name in ids if name in guesses},
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
