"""The probe's small models: their size, and what packing does to their logits."""

from __future__ import annotations

from typing import Any

import pytest

from distiller.errors import InputError
from distiller.memory import estimate
from distiller.probe import probe
from distiller.recipe import Training


def config(kind: str, **changes: Any) -> Any:
    import transformers

    return getattr(transformers, f"{kind}Config")(**changes)


@pytest.mark.parametrize("kind", ["Qwen2", "Qwen3", "Llama"])
def test_packed_logits_equal_unpacked_ones_for_the_known_architectures(kind: str) -> None:
    from transformers import AutoModelForCausalLM

    shape = config(
        kind, vocab_size=1000, hidden_size=128, intermediate_size=256, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    parameters, difference = probe(shape)
    model = AutoModelForCausalLM.from_config(shape)
    assert parameters == sum(parameter.numel() for parameter in model.parameters())
    assert difference < 1e-4


def test_attention_that_packing_does_not_know_is_seen() -> None:
    """A window that the packed attention ignores changes the logits."""
    windowed = config("Mistral", sliding_window=4096, num_hidden_layers=2)
    for packed in (True, False):
        assert probe(windowed, packed=packed)[1] > 1e-2
        assert probe(windowed, longest=4097, packed=packed)[1] > 1e-2
        assert probe(windowed, longest=4096, packed=packed)[1] < 1e-4


@pytest.mark.parametrize(
    ("kind", "changes"), [("Phi", {}), ("Granite", {"logits_scaling": 4.0}), ("Cohere", {})]
)
def test_logits_that_the_loss_does_not_know_are_refused(kind: str, changes: dict[str, Any]) -> None:
    """A bias of the output layer, or a scale: trained on, they would be left out without a word."""
    with pytest.raises(InputError, match=r"base: its logits are more .* times the right one; use"):
        probe(config(kind, num_hidden_layers=2, **changes))


def test_a_size_is_told_of_other_architectures_too() -> None:
    shape = config("GPT2")
    assert estimate(shape, 10**8, Training(), 512).total_bytes > 16 * 10**8


def test_an_architecture_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(InputError, match="packing: cannot be tried with this architecture"):
        probe(config("T5"))


def test_the_estimate_grows_as_it_should() -> None:
    shape = config("Qwen2")
    plain = Training()
    base = estimate(shape, 10**9, plain, 32768)
    assert base.state_bytes == 16 * 10**9
    assert base.tokens == 32768
    assert estimate(shape, 10**9, plain, 1024).tokens == 16384  # packed up to the micro-batch
    small = Training(lora={"rank": 8, "alpha": 16}, dtype="bfloat16")
    assert estimate(shape, 10**9, small, 32768).state_bytes < 3 * 10**9
    kept = Training(gradient_checkpointing=False)
    assert estimate(shape, 10**9, kept, 32768).total_bytes > 2 * base.total_bytes
    assert "about" in base.sentence
