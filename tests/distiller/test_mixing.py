"""The mix: stated proportions, drawn the same way each time; chats read or refused in a line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distiller import corpus
from distiller.corpus import Encoder
from distiller.errors import CorpusError, InputError
from distiller.mixing import Chat, chosen, read_chats, sampling_key, shares
from evaluator.protocol import Thinking
from evaluator.records import Problem
from tests.distiller.samples import make_tiny, recipe, trace

COUNTS = st.dictionaries(st.sampled_from("abc"), st.integers(1, 5000), min_size=1)


@given(COUNTS, st.lists(st.floats(0.1, 9), min_size=3, max_size=3))
def test_the_largest_mix_keeps_the_proportions(
    available: dict[str, int], numbers: list[float]
) -> None:
    weights = dict(zip("abc", numbers, strict=True))
    scale = min(available[name] / weights[name] for name in available)
    if min(scale * weights[name] for name in available) < 1 - 1e-6:
        with pytest.raises(CorpusError, match="leave no example of source"):
            shares(available, weights, None)
        return
    counts = shares(available, weights, None)
    for name, count in counts.items():
        assert 1 <= count <= available[name]
        assert abs(count - scale * weights[name]) < 1 + 1e-6
    assert any(counts[name] == available[name] for name in available)


@given(COUNTS, st.lists(st.floats(0.1, 9), min_size=3, max_size=3), st.integers(1, 9000))
def test_a_stated_size_is_met_or_refused(
    available: dict[str, int], numbers: list[float], size: int
) -> None:
    weights = dict(zip("abc", numbers, strict=True))
    whole = sum(weights[name] for name in available)
    try:
        counts = shares(available, weights, size)
    except CorpusError:
        wanted = [size * weights[name] / whole for name in available]
        short = [a - w for a, w in zip(available.values(), wanted, strict=True)]
        assert min(short) < 1 or min(wanted) < 1
        return
    assert sum(counts.values()) == size
    assert all(abs(counts[n] - size * weights[n] / whole) < 1 for n in counts)


def test_three_to_one_is_exact() -> None:
    weights = {"traces": 3.0, "general": 1.0}
    assert shares({"traces": 600, "general": 200}, weights, None) == {
        "traces": 600, "general": 200,
    }  # fmt: skip
    assert shares({"traces": 600, "general": 50}, weights, None) == {"traces": 150, "general": 50}
    with pytest.raises(CorpusError, match="'general' has no usable example"):
        shares({"traces": 600, "general": 0}, weights, None)
    with pytest.raises(CorpusError, match="400 need 300 of source 'traces', which has 299"):
        shares({"traces": 299, "general": 200}, weights, 400)


@given(st.lists(st.text(max_size=4), min_size=1, unique=True), st.integers(0, 9), st.randoms())
def test_what_is_drawn_depends_on_no_order(ids: list[str], seed: int, random: Any) -> None:
    count = random.randint(0, len(ids))

    def drawn(order: list[str]) -> set[str]:
        keys = [sampling_key(seed, "general", each, 0) for each in order]
        return {order[place] for place in chosen(keys, count)}

    shuffled = random.sample(ids, len(ids))
    assert drawn(ids) == drawn(shuffled)
    assert len(drawn(ids)) == count


def write(path: Path, *rows: Any) -> Path:
    text = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def messages(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": f"{role} says"} for role in roles]}


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz"])
def test_both_forms_of_chats_are_read(name: str, tmp_path: Path) -> None:
    path = write(
        tmp_path / name,
        {"prompt": "p", "response": "r"},
        "",
        messages("system", "user", "assistant", "user", "assistant"),
    )
    first, second = read_chats(path, "talk")
    assert first == Chat("talk:1", None, ({"role": "user", "content": "p"},), "r")
    assert (second.id, second.system, second.answer) == ("talk:3", "system says", "assistant says")
    assert second.asked == "user says\nuser says"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "is no object"),
        ({"text": "t"}, "is no chat"),
        ({"messages": []}, "must be a list"),
        ({"prompt": "p", "response": ""}, "not empty"),
        ({"prompt": "p", "response": 3}, "content that is text"),
        (messages("user"), "take turns"),
        (messages("system"), "take turns"),
        (messages("assistant", "user"), "take turns"),
        (messages("user", "tool"), "needs a role"),
        ({"messages": ["hello"]}, "needs a role"),
    ],
)
def test_a_bad_row_is_told_with_its_line(row: Any, sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", {"prompt": "p", "response": "r"}, row)
    with pytest.raises(InputError, match=f"c.jsonl: line 2.*{sentence}"):
        list(read_chats(path, "talk"))


def test_unreadable_files_are_told(tiny_qwen: Path, tmp_path: Path) -> None:
    (tmp_path / "b.gz").write_bytes(b"no gzip")
    for name in ("missing.jsonl", "b.gz"):
        with pytest.raises(InputError, match=r"corpus\.general: .*cannot be read"):
            list(read_chats(tmp_path / name, "talk"))
    plan = {"general": [{"file": str(tmp_path / "missing.jsonl")}]}
    with pytest.raises(InputError, match=r"corpus\.general: .*missing.jsonl cannot be read"):
        build(tiny_qwen, tmp_path, 3, plan)
    assert not list(tmp_path.glob("out*"))


def build(
    base: Path, folder: Path, traces: int, plan: dict[str, Any], **options: Any
) -> tuple[list[Any], corpus.Corpus, dict[str, Any]]:
    chosen = recipe(base, corpus=plan)
    reasons = corpus.build(
        [trace(str(n), sample=n) for n in range(traces)],
        encoder=Encoder(base, chosen), recipe=chosen, out=folder / "out", **options,
    )  # fmt: skip
    return reasons, *corpus.read(folder / "out")


def test_the_counts_are_said_plainly_and_sum(tiny_qwen: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"say {n}", "response": f"{n}"} for n in range(5)]
    path = write(tmp_path / "c.jsonl", *rows)
    reasons, examples, manifest = build(
        tiny_qwen, tmp_path, 40, {"general": [{"file": str(path), "name": "talk"}]}
    )
    assert reasons.count(None) == 15
    assert reasons.count("not_sampled") == 25
    assert [s["used"] for s in manifest["sources"]] == [15, 5]
    assert sum(e.source == "talk" for e in examples) == 5
    kept = {e.sample for e in examples if e.source == "traces"}
    assert kept == {n for n, reason in enumerate(reasons) if reason is None}
    assert corpus.summary(manifest)[0].startswith("traces: 15 of 40 used (75.0% of the examples")
    for index, tally in enumerate(manifest["sources"]):
        assert tally["offered"] == tally["used"] + sum(tally["dropped"].values())
        mine = [e for e in examples if e.source == tally["name"]]
        assert tally["tokens"] == sum(len(e.input_ids) for e in mine), index
    again = build(tiny_qwen, tmp_path, 40, {"general": [{"file": str(path), "name": "talk"}]})
    assert again[0] == reasons
    other = build(
        tiny_qwen, tmp_path, 40, {"general": [{"file": str(path), "name": "talk"}], "seed": 1}
    )
    assert other[0] != reasons


def test_an_empty_source_is_refused(tiny_qwen: Path, tmp_path: Path) -> None:
    empty = write(tmp_path / "c.jsonl", "")
    with pytest.raises(CorpusError, match="'general' has no usable example"):
        build(tiny_qwen, tmp_path, 4, {"general": [{"file": str(empty)}]})
    assert not (tmp_path / "out").exists()


def test_chats_are_decontaminated_too(tiny_qwen: Path, tmp_path: Path) -> None:
    words = "how many different ways are there to colour a cube with three colours"
    rows = [{"prompt": text, "response": "x"} for text in ("hello", words.upper(), "good bye")]
    plan = {"general": [{"file": str(write(tmp_path / "c.jsonl", *rows))}]}
    held = {"held@1": [Problem("q", f"{words}?", "57")]}
    _, examples, manifest = build(tiny_qwen, tmp_path, 9, plan, benchmarks=held)
    assert manifest["sources"][1]["dropped"] == {"contaminated": 1, "not_sampled": 0}
    assert {e.problem_id for e in examples if e.source == "general"} == {"general:1", "general:3"}


def test_a_chat_without_thoughts_closes_the_ones_that_are_forced(tmp_path: Path) -> None:
    base = make_tiny("qwen2", tmp_path / "base")
    encoder = Encoder(base, recipe(base, thinking=Thinking(forced=True).model_dump()))
    chat = Chat("general:1", None, ({"role": "user", "content": "hi"},), "hello")
    rendered = encoder.render_chat(chat)
    assert rendered.prompt.endswith("<think>\n")
    assert rendered.response == "\n</think>\n\nhello"
    plain = Encoder(base, recipe(base)).render_chat(chat)
    assert plain.response == "hello"


def test_sources_need_names_of_their_own(tiny_qwen: Path) -> None:
    for names in (("traces",), ("a", "a")):
        general = [{"file": "f", "name": name} for name in names]
        with pytest.raises(ValueError, match="a name of its own"):
            recipe(tiny_qwen, corpus={"general": general})
