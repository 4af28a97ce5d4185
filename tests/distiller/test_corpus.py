"""The loss mask, against a brute-force rendering; the manifest; real tokenizers."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distiller import corpus, preflight
from distiller.corpus import Encoder, Example, token_histogram
from distiller.errors import CorpusError
from distiller.filters import Trace
from evaluator.engines.prompting import Prompter
from evaluator.protocol import Protocol, Thinking
from tests.distiller.samples import recipe, trace


def build(base: Path, out: Path, traces: list[Trace], **changes: Any) -> list[Example]:
    chosen = recipe(base, **changes)
    corpus.build(traces, encoder=Encoder(base, chosen), recipe=chosen, out=out)
    return list(corpus.read(out)[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(min_size=1, max_size=30), st.text(max_size=30))
def test_only_the_response_and_its_end_carry_loss(
    tiny_qwen: Path, problem: str, response: str
) -> None:
    if not problem.strip():
        problem = "1" + problem
    encoder = Encoder(tiny_qwen, recipe(tiny_qwen))
    example = encoder.encode(trace(response, problem=problem))
    tokenizer = Prompter(tiny_qwen).tokenizer
    head = tokenizer.apply_chat_template(
        [{"role": "user", "content": problem}], add_generation_prompt=True, tokenize=False
    )
    whole = head + response + tokenizer.eos_token
    ids, at = [], 0
    masked = []
    for token in example.input_ids:
        ids.append(token)
        masked.append(at < len(head))
        at = len(tokenizer.decode(ids, skip_special_tokens=False))
    assert tokenizer.decode(list(example.input_ids), skip_special_tokens=False) == whole
    supervised = example.input_ids[example.prompt_tokens :]
    assert tokenizer.decode(supervised[:-1], skip_special_tokens=False) == response
    assert supervised[-1] == tokenizer.eos_token_id
    if whole.isascii():  # where a character is a token, the mask can be read off the text
        assert masked == [index < example.prompt_tokens for index in range(len(masked))]


def test_a_forced_start_belongs_to_the_prompt(tiny_qwen: Path) -> None:
    encoder = Encoder(tiny_qwen, recipe(tiny_qwen, thinking=Thinking(forced=True).model_dump()))
    example = encoder.encode(trace("<think>\nwell</think>\\boxed{2}"))
    prompt = encoder.decode(example.input_ids[: example.prompt_tokens])
    assert prompt.endswith("<think>\n")
    assert encoder.decode(example.input_ids[example.prompt_tokens :]).startswith("well</think>")


def test_the_prompt_is_the_one_of_inference(tiny_qwen: Path) -> None:
    chosen = recipe(tiny_qwen, prompt="Add: {problem}")
    rendered = Prompter(tiny_qwen).render("1+1", prompt="Add: {problem}", protocol=Protocol())
    assert Encoder(tiny_qwen, chosen).prompt("1+1") == rendered


def test_manifest_counts_and_too_long_traces(tiny_qwen: Path, tmp_path: Path) -> None:
    chosen = recipe(tiny_qwen, training={"max_length_tokens": 20})
    encoder = Encoder(tiny_qwen, chosen)
    reasons = corpus.build(
        [trace("2"), trace("x" * 50, sample=1)], encoder=encoder, recipe=chosen, out=tmp_path / "c"
    )
    assert reasons == [None, "too_long"]
    examples, manifest = corpus.read(tmp_path / "c")
    assert manifest["examples"] == len(examples) == 1
    assert manifest["tokens"] == len(examples[0].input_ids)
    assert manifest["supervised_tokens"] == 2
    assert sum(bucket["count"] for bucket in manifest["token_histogram"]) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1),
    st.integers(8, 40),
    st.sampled_from(["drop", "truncate"]),
)
def test_what_is_read_is_what_was_encoded(
    tiny_qwen: Path, tmp_path: Path, texts: list[str], limit: int, policy: str
) -> None:
    chosen = recipe(tiny_qwen, training={"max_length_tokens": limit}, corpus={"too_long": policy})
    encoder = Encoder(tiny_qwen, chosen)
    traces = [trace(f"x{text}", sample=index) for index, text in enumerate(texts)]
    whole = [encoder.encode(each) for each in traces]
    try:
        reasons = corpus.build(traces, encoder=encoder, recipe=chosen, out=tmp_path / "c")
    except CorpusError:
        assert policy == "drop"
        assert all(len(example.input_ids) > limit for example in whole)
        return
    examples, manifest = corpus.read(tmp_path / "c")
    assert [reason is None for reason in reasons] == [
        policy == "truncate" or len(example.input_ids) <= limit for example in whole
    ]
    kept = [e for e, reason in zip(whole, reasons, strict=True) if reason is None]
    assert [e.input_ids for e in examples] == [e.input_ids[:limit] for e in kept]
    assert [e.cut for e in examples] == [len(e.input_ids) > limit for e in kept]
    assert all(e.cut or e.input_ids[-1] == encoder.end_id for e in examples)
    for example, before in zip(examples, kept, strict=True):
        assert example.prompt_tokens == min(before.prompt_tokens, limit)
        assert example.problem_id == before.problem_id
        assert example.sample == before.sample
    (source,) = manifest["sources"]
    assert source["offered"] == source["used"] + sum(source["dropped"].values()) == len(texts)
    assert source["truncated"] == manifest["truncated"] == sum(e.cut for e in examples)
    assert manifest["supervised_tokens"] == sum(
        len(e.input_ids) - e.prompt_tokens for e in examples
    )


def test_the_same_inputs_give_the_same_manifest(tiny_qwen: Path, tmp_path: Path) -> None:
    traces = [trace(str(n), sample=n) for n in range(20)]
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        chats = folder / "chats.jsonl"
        chats.write_text('{"prompt": "hello", "response": "hi"}\n' * 3)
        plan = {"general": [{"file": str(chats)}], "seed": 4}
        build(tiny_qwen, folder / "c", traces, corpus=plan)
    written = [(tmp_path / name / "c" / corpus.MANIFEST).read_bytes() for name in ("a", "b")]
    assert written[0] == written[1]
    manifest = json.loads(written[0])
    assert str(tmp_path) not in json.dumps(manifest)
    address = corpus.manifest_hash(manifest)
    changes: list[dict[str, Any]] = [
        {"corpus": {"seed": 5}}, {"prompt": "{problem}?"}, {"training": {"max_length_tokens": 99}},
    ]  # fmt: skip
    for index, change in enumerate(changes):
        build(tiny_qwen, tmp_path / f"d{index}", traces, **change)
        other = corpus.read(tmp_path / f"d{index}")[1]
        assert corpus.manifest_hash(other) != address


def test_an_ending_token_inside_a_response_is_dropped_and_one_at_its_end_is_not_doubled(
    tiny_qwen: Path, tmp_path: Path
) -> None:
    chosen = recipe(tiny_qwen)
    encoder = Encoder(tiny_qwen, chosen)
    traces = [trace("2<|im_end|>"), trace("2<|im_end|>3", sample=1)]
    reasons = corpus.build(traces, encoder=encoder, recipe=chosen, out=tmp_path / "c")
    assert reasons == [None, "ending_inside"]
    (example,) = corpus.read(tmp_path / "c")[0]
    assert example.input_ids.count(encoder.end_id) == 1


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tiny_qwen, tmp_path / "c", [trace("2")])
    before = (tmp_path / "c" / corpus.MANIFEST).read_bytes()

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(corpus.os, "rename", full)
    with pytest.raises(CorpusError, match=r"No space left on device.*make room"):
        build(tiny_qwen, tmp_path / "c", [trace("3")])
    assert (tmp_path / "c" / corpus.MANIFEST).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_memory_does_not_grow_with_the_traces(tiny_qwen: Path, tmp_path: Path) -> None:
    chosen = recipe(tiny_qwen, training={"max_length_tokens": 4096})
    encoder = Encoder(tiny_qwen, chosen)

    def peak(count: int) -> int:
        traces = (trace("thoughts " * 200, sample=n) for n in range(count))
        tracemalloc.start()
        corpus.build(traces, encoder=encoder, recipe=chosen, out=tmp_path / "c")
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    small, large = peak(200), peak(800)
    tokens_bytes = 4 * corpus.read(tmp_path / "c")[1]["tokens"]
    assert large - small < tokens_bytes / 10


@given(st.lists(st.integers(1, 100_000), min_size=1))
def test_histogram_holds_every_length_once(lengths: list[int]) -> None:
    buckets = token_histogram(lengths)
    assert sum(bucket["count"] for bucket in buckets) == len(lengths)
    for bucket in buckets:
        inside = [n for n in lengths if bucket["low"] <= n < bucket["high"]]
        assert len(inside) == bucket["count"]
    assert all(a["high"] == b["low"] for a, b in itertools.pairwise(buckets))


def test_nothing_is_refused_and_leaves_nothing(tiny_qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="empty"):
        build(tiny_qwen, tmp_path / "c", [])
    with pytest.raises(CorpusError, match="no token but the ending one"):
        build(tiny_qwen, tmp_path / "c", [trace("")])
    assert not (tmp_path / "c").exists()


def test_a_damaged_corpus_is_refused(tiny_qwen: Path, tmp_path: Path) -> None:
    build(tiny_qwen, tmp_path / "c", [trace("2")])
    with (tmp_path / "c" / corpus.TOKENS).open("r+b") as file:
        file.write(b"\1")
    with pytest.raises(CorpusError, match="is not the file of"):
        corpus.read(tmp_path / "c")
    with pytest.raises(CorpusError, match="cannot be read"):
        corpus.read(tmp_path / "none")


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["deepseek-r1-distill-qwen", "qwen2.5"])
def test_real_templates_keep_the_thoughts(name: str, shared_tokenizer: Any) -> None:
    base = shared_tokenizer(name)
    text = "<think>\nSums: 1+1.\n</think>\n\n\\boxed{2}"
    encoder = Encoder(base, recipe(base))
    example = encoder.encode(trace(text))
    assert encoder.decode(example.input_ids).count(text) == 1
    assert example.input_ids[-1] == encoder.end_id
    found = preflight.checks_of_corpus([example], encoder, recipe(base))
    preflight.require_passed(found)
    levels = {check.name: check.level for check in found}
    shared = name == "deepseek-r1-distill-qwen"  # it pads with its ending token
    assert levels["padding"] == ("warning" if shared else "ok")
    assert levels["thinking tags"] == ("ok" if shared else "warning")  # Qwen2.5 splits them


@pytest.mark.parametrize(
    "mark", ["<|im_end|>", "<|im_end|>\n", "<｜end▁of▁sentence｜>", "</s> \n</s>"]
)
def test_an_ending_that_an_engine_left_is_not_learnt_as_text(mark: str, tiny_qwen: Path) -> None:
    encoder = Encoder(tiny_qwen, recipe(tiny_qwen))
    text = "<think>\n1\n</think>\n\n2"
    assert encoder.encode(trace(text + mark)) == encoder.encode(trace(text))


def test_a_response_that_speaks_for_the_user_is_dropped(tiny_qwen: Path, tmp_path: Path) -> None:
    chosen = recipe(tiny_qwen)
    encoder = Encoder(tiny_qwen, chosen)
    assert encoder.turn_ids.isdisjoint(encoder.ids("<think></think>"))
    good = "<think>1</think>2"
    traces = [trace(good), trace(f"{good}<|user|>3+3", sample=1)]
    reasons = corpus.build(traces, encoder=encoder, recipe=chosen, out=tmp_path / "corpus")
    assert reasons == [None, "turn_inside"]
