"""The toy's tokenizer, its chains, and its cache."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from distiller import toy
from distiller.checkpoints import content_hash, inspect
from evaluator.benchmarks import arithmetic

WORDS = toy.tokenizer()
TINY = toy.ToySettings(role="base", terms=2, steps=2, seed=0, width=16, layers=1, batch_size=4)


@given(st.text())
def test_any_text_survives_the_tokenizer(text: str) -> None:
    ids = WORDS(text)["input_ids"]
    assert WORDS.decode(ids, skip_special_tokens=False) == text


@given(st.lists(st.integers(0, 99), min_size=2, max_size=3), st.data())
def test_chains_are_true_and_end_in_the_value(numbers: list[int], data: st.DataObject) -> None:
    problem = str(numbers[0]) + "".join(
        data.draw(st.sampled_from("+-")) + str(number) for number in numbers[1:]
    )
    response = toy.solve(problem)
    value = eval(problem)
    assert response.endswith(f"</think>\\boxed{{{value}}}")
    ones, tens = re.fullmatch(r"<think>ones: (.*), tens: (.*)</think>.*", response).groups()
    results = []
    for chain in (ones, tens):
        parts = chain.split("=")
        total = parts[0]
        for claimed in parts[1:]:
            left = re.match(r"-?\d+[+-]\d", f"{total}")
            assert left is not None
            step = re.match(r"-?\d+", claimed)
            assert eval(total) == int(step[0])
            total = claimed
        results.append(int(re.match(r"-?\d+", total)[0]))
    assert results[0] + 10 * results[1] == value


def test_one_token_per_marker_and_padding_is_no_ending() -> None:
    for word in (*toy.SPECIAL_TOKENS, *toy.WORD_TOKENS):
        assert len(WORDS(word)["input_ids"]) == 1
    assert WORDS.pad_token_id != WORDS.eos_token_id


def test_template_keeps_thoughts_and_agrees_with_training() -> None:
    turns = [
        {"role": "user", "content": "1+2"},
        {"role": "assistant", "content": "<think>x</think>3"},
    ]
    assert WORDS.apply_chat_template(turns[:1], add_generation_prompt=True, tokenize=False) == (
        f"{toy.USER}1+2{toy.ASSISTANT}"
    )
    assert "<think>x</think>3" in WORDS.apply_chat_template(turns, tokenize=False)


def test_checkpoint_is_whole_reloads_alike_and_repeats(tmp_path: Path) -> None:
    for name in ("one", "two"):
        toy.torch.manual_seed(0)
        toy._make(TINY, toy._new_model(TINY), tmp_path / name, set(), lambda *_: None)
    assert inspect(tmp_path / "one").has_chat_template
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "two")
    assert toy._is_whole(tmp_path / "one", TINY)
    assert not toy._is_whole(tmp_path / "one", replace(TINY, seed=1))
    loaded = AutoTokenizer.from_pretrained(tmp_path / "one")
    for text in ("12+7-30", " a  b\n<think>é</think>\\boxed{-1}<|im_end|>"):
        assert loaded(text)["input_ids"] == WORDS(text)["input_ids"]
        assert loaded.decode(loaded(text)["input_ids"]) == text
    (tmp_path / "one" / "model.safetensors").write_bytes(b"torn")
    assert not toy._is_whole(tmp_path / "one", TINY)


def test_excluded_texts_are_never_taught() -> None:
    settings = replace(TINY, steps=8, terms=3, role="teacher")
    taught = _texts(settings, set())
    assert len(taught) == 32
    excluded = set(sorted(taught)[:10])
    assert not _texts(settings, excluded) & excluded


def test_taught_problems_are_not_a_benchmarks_of_a_small_seed() -> None:
    settings = replace(TINY, steps=8, terms=3, role="teacher")
    for seed in range(5):
        held_out = {p.problem for p in arithmetic.generate(32, seed=seed)}
        assert len(_texts(settings, set()) & held_out) < 3


def _texts(settings: toy.ToySettings, excluded: set[str]) -> set[str]:
    texts = set()
    for tokens, targets in toy._batches(settings, excluded):
        for row, target in zip(tokens, targets, strict=True):
            prompt = WORDS.decode(row[: int((target != -100).int().argmax())])
            texts.add(prompt.removeprefix(toy.USER).removesuffix(toy.ASSISTANT))
    return texts


@pytest.mark.parametrize("problem", ["0-0", "5", "99-99-99"])
def test_columns_of_edge_cases(problem: str) -> None:
    assert toy.solve(problem).endswith(f"\\boxed{{{eval(problem)}}}")
