"""Filtering in shards is filtering: whatever the shards, their order and their deaths."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distiller import refining
from distiller.recipe import FilterChoice, Recipe
from distiller.sieve import Fate
from distiller.stages import SPOOL, FilterStage
from evaluator.child import Reporter, ShardRequest
from evaluator.records import Completion, FinishReason, Problem
from evaluator.store import SealedSegment, SegmentWriter, read_segment
from tests.distiller.samples import recipe
from tests.distiller.test_stages import PROMPTS, filter_spec, write_traces

NAMES = ("Ada", "Ada ", "Bob")  # white space makes a copy, a name nearly one
LONG = "has some apples in a box on the table and puts two more into it before lunch"
FILTERS: tuple[dict[str, Any], ...] = (
    {"name": "truncated"},
    {"name": "format"},
    {"name": "mixed_language"},
    {"name": "answer", "parameters": {"grader": "integer"}},
    {"name": "pass_rate", "parameters": {"grader": "integer", "min_rate": 0.3}},
    {"name": "duplicates"},
    {"name": "duplicates", "parameters": {"near_prompts": False}},
    {"name": "select", "parameters": {"per_prompt": 2}},
)
TEXTS = (
    "<think>two more</think>\\boxed{{{answer}}}",
    "<think>two  more</think>\\boxed{{{answer}}}",
    "<think>some more</think>\\boxed{{{answer}}}",
    "<think>\ud800 half a pair</think>\\boxed{{{answer}}}",
    "<think>我们</think>\\boxed{{{answer}}}",
    "<think>one more</think>\\boxed{{0}}",
    "no thoughts",
)


@st.composite
def problems(draw: st.DrawFn) -> list[Problem]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=3, max_size=7))
    return [Problem(f"p{i}", f"{name} {LONG}", str(len(name))) for i, name in enumerate(names)]


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    chosen = {each["name"]: each for each in draw(st.permutations(FILTERS))}
    filters = [each for each in chosen.values() if draw(st.booleans())]
    return recipe("base", filters=filters, decontaminate=draw(st.booleans()))


def completions(data: st.DataObject, asked: Sequence[Problem]) -> list[Completion]:
    """Some samples of some problems; keys come twice, and engines fail."""
    drawn = []
    for problem in asked:
        for sample in data.draw(st.lists(st.integers(0, 3), max_size=4)):
            text = data.draw(st.sampled_from(TEXTS)).format(answer=problem.answer)
            failed = data.draw(st.sampled_from((False, False, False, True)))
            finish = FinishReason.ERROR if failed else FinishReason.STOP
            error = "down" if failed else None
            drawn.append(Completion(problem.id, sample, text, finish, error=error))
    drawn.append(Completion(asked[0].id, 9, TEXTS[0].format(answer="1"), FinishReason.STOP))
    return drawn


def segments(folder: Path, rows: Sequence[Completion]) -> list[Path]:
    with SegmentWriter(folder, prefix="drawn", seal_rows=3) as writer:
        for row in rows:
            writer.append(row.to_json())
    return sorted(folder.glob("*.zst"))


def content(folder: Path) -> dict[str, bytes]:
    """Every file below the folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@settings(max_examples=60, deadline=None)
@given(data=st.data(), asked=problems(), chosen=recipes())
def test_parts_in_any_order_make_what_the_whole_makes(
    data: st.DataObject, asked: list[Problem], chosen: Recipe
) -> None:
    held_out = {"held@1": [Problem("h", asked[-1].problem, asked[-1].answer)]}
    common: dict[str, Any] = {"prompts": asked, "recipe": chosen, "benchmarks": held_out}
    with TemporaryDirectory() as name:
        folder = Path(name)
        sources = segments(folder / "drawn", completions(data, asked))
        whole = refining.refine(sources, jobs=1, out=folder / "whole", **common)
        steps, left = whole["funnel"]["steps"], whole["funnel"]["traces"]
        for step in steps:
            assert step["kept"] + step["dropped"] == left
            assert step["dropped"] == sum(step["reasons"].values())
            left = step["kept"]

        size = data.draw(st.integers(1, len(asked)), "prompts in a part")
        parts = [asked[at : at + size] for at in range(0, len(asked), size)]
        found: dict[int, list[Fate]] = {}
        for at in data.draw(st.permutations(range(len(parts))), "order"):
            spool = folder / f"spool-{at}"
            spool.mkdir()
            material = refining.Material.gather(sources, spool=spool, **common)
            ids = [problem.id for problem in parts[at]]
            how = refining.settings_of(chosen)
            fates = list(material.fates(how, jobs=1, ids=ids))
            cut = data.draw(st.integers(0, len(fates)), "a lease that ended here")
            again = list(material.fates(how, jobs=1, ids=ids, after=cut))
            assert again == fates[cut:]
            assert len(fates) == material.index.count(material.chosen(ids))
            found[at] = [*fates[:cut], *again]
        with SegmentWriter(folder / "parts", prefix="part", seal_rows=5) as writer:
            for at in range(len(parts)):
                for fate in found[at]:
                    writer.append(json.loads(fate.line))
        rows = [r for p in sorted((folder / "parts").iterdir()) for _, r in read_segment(p)]
        merged = refining.merge(
            map(Fate.of_row, rows), traces=len(rows), out=folder / "merged", **common
        )
        assert merged == whole
        assert content(folder / "merged") == content(folder / "whole")


def a_stage(spec: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    folder.mkdir()
    return {**spec, "stage_folder": str(folder), "segments_folder": str(folder / "segments")}


class DiedError(Exception):
    pass


def run(
    spec: dict[str, Any],
    shard: int,
    work: dict[str, Any],
    accepted: list[str],
    *,
    lease: str,
    dies_after: int | None = None,
) -> Mapping[str, Any]:
    """One lease of a shard in a child of its own; ``accepted`` grows by what was sealed."""
    request = ShardRequest(shard, lease, work, tuple(accepted))

    class Accepting(Reporter):
        def segment(self, sealed: SealedSegment) -> None:
            if dies_after is not None and len(accepted) >= dies_after:
                raise DiedError
            accepted.append(sealed.name)

    report = Accepting(io.StringIO(), request)
    return FilterStage(spec, report).run(request, report)


def test_shards_of_a_stage_make_the_corpus_that_one_makes(
    tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = filter_spec(tmp_path, tiny_qwen)
    assert write_traces(tmp_path / "traces")
    whole = run(one := a_stage(spec, tmp_path / "one"), 1, {}, [], lease="aa")
    parts = a_stage(spec, tmp_path / "parts")
    monkeypatch.setattr("distiller.stages.SegmentWriter", _short_segments)
    ids = [problem.id for problem in PROMPTS]
    works = [{"problem_ids": ids[at : at + 5]} for at in range(0, len(ids), 5)]
    accepted: dict[int, list[str]] = {at: [] for at in range(len(works))}
    for at in (2, 0, 1):
        with pytest.raises(DiedError):
            run(parts, at, works[at], accepted[at], lease="bb", dies_after=1)
        assert run(parts, at, works[at], accepted[at], lease="cc")["traces"] > 0
    (Path(parts["stage_folder"]) / f"{SPOOL}of-a-killed-child").mkdir()
    names = [name for at in range(len(works)) for name in accepted[at]]
    merged = run(parts, 3, {"merge": True}, names, lease="aa")
    assert merged["funnel"] == whole["funnel"]
    assert merged["manifest_hash"] == whole["manifest_hash"]
    made = [content(Path(each["stage_folder"]) / "aa") for each in (one, parts)]
    assert made[0] == made[1]
    assert {"kept.jsonl", "funnel.json", "corpus/manifest.json"} <= made[0].keys()
    assert not list(Path(parts["stage_folder"]).glob(f"{SPOOL}*"))


def _short_segments(folder: Path, **options: Any) -> SegmentWriter:
    return SegmentWriter(folder, seal_rows=3, **options)


def test_the_order_of_filters_of_a_question_stays_the_recipes() -> None:
    choices = (FilterChoice(name="select"), FilterChoice(name="duplicates"))
    chosen = recipe("base", filters=[choice.model_dump() for choice in choices])
    assert refining.settings_of(chosen).steps()[-2:] == ["select", "duplicates"]
