"""The transformers engine against plain loops, and prompts against published templates."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.engines import Request, create, names
from evaluator.engines.base import forced_start
from evaluator.engines.prompting import Prompter
from evaluator.engines.sampling import uniforms
from evaluator.errors import InputError
from evaluator.protocol import Protocol, Sampling, Thinking
from evaluator.records import Completion, FinishReason, completion_seed
from tests.evaluator.tiny import write_tokenizer

TOKENIZERS = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"
PROBLEMS = ["1", "12+34", "7*8-(9+1)", "x", "99/3 + 100 - 2*(4)", "a+b=c", "0", "12+34"]
PLAIN = Protocol(name="test")
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=30)
WARM = Sampling(temperature=1.0, top_p=0.9, max_tokens=30)


def requests(engine: Any, *, samples: int = 2, protocol: Protocol = PLAIN) -> list[Request]:
    made = []
    for number, problem in enumerate(PROBLEMS):
        text = engine.render(problem, prompt="{problem}", protocol=protocol)
        for sample in range(samples):
            key = f"p{number}"
            start = forced_start(text, protocol.thinking)
            made.append(Request(key, sample, text, completion_seed(0, key, sample), start))
    return made


def by_key(completions: Any) -> dict[tuple[str, int], Completion]:
    found = {}
    for completion in completions:
        assert completion.key not in found
        found[completion.key] = completion
    return found


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path) -> Any:
    return create({"name": "transformers", "model": str(tiny_checkpoint), "device": "cpu"})


def oracle(folder: Path, request: Request, sampling: Sampling) -> list[int]:
    """One completion's tokens with a whole forward pass for each, and no cache."""
    import torch
    from transformers import AutoModelForCausalLM

    from evaluator.engines.sampling import draw_tokens

    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = Prompter(folder).encode(request, context=96)
    drawn: list[int] = []
    for step in range(min(sampling.max_tokens, 96 - len(ids))):
        with torch.inference_mode():
            logits = model(torch.tensor([ids + drawn])).logits[:, -1]
        uniform = torch.from_numpy(uniforms(np.array([request.seed]), np.array([step])))
        token = draw_tokens(
            logits, temperature=sampling.temperature, top_p=sampling.top_p, uniform=uniform
        )
        drawn.append(int(token))
        if drawn[-1] == 1:
            break
    return drawn


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_refilled_as_rows_end_give_what_one_row_alone_gives(
    tiny_checkpoint: Path, sampling: Sampling, batch_size: int
) -> None:
    engine = create(
        {"name": "transformers", "model": str(tiny_checkpoint), "batch_size": batch_size}
    )
    asked = requests(engine)
    found = by_key(engine.generate(asked, sampling))
    tokenizer = Prompter(tiny_checkpoint).tokenizer
    assert set(found) == {request.key for request in asked}
    for request in asked:
        drawn = oracle(tiny_checkpoint, request, sampling)
        completion = found[request.key]
        ended = drawn[-1] == 1
        assert completion.text == tokenizer.decode(drawn[:-1] if ended else drawn)
        assert completion.completion_tokens == len(drawn)
        assert completion.finish_reason == (FinishReason.STOP if ended else FinishReason.LENGTH)
        assert completion.seed == request.seed
    assert len({completion.finish_reason for completion in found.values()}) == 2 or (
        sampling is GREEDY
    ), "the checkpoint should end some rows early and not others"


def test_a_completion_does_not_depend_on_its_neighbours(engine: Any) -> None:
    asked = requests(engine, samples=4)
    together = by_key(engine.generate(asked, WARM))
    for some in (asked[::3], asked[5:6], asked[::-1]):
        assert by_key(engine.generate(some, WARM)).items() <= together.items()
    assert together["p0", 0].text != together["p0", 1].text


def test_completions_come_as_they_end(engine: Any) -> None:
    lengths = [
        completion.completion_tokens for completion in engine.generate(requests(engine), WARM)
    ]
    assert lengths[0] is not None
    assert lengths[0] <= min(lengths[1:])


def test_the_checkpoints_own_generation_settings_are_ignored(
    tiny_checkpoint: Path, tmp_path: Path, engine: Any
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_checkpoint, other)
    (other / "generation_config.json").write_text(
        json.dumps({"max_length": 12, "repetition_penalty": 5.0, "eos_token_id": 20, "top_k": 1})
    )
    changed = create({"name": "transformers", "model": str(other), "device": "cpu"})
    asked = requests(engine)
    assert by_key(changed.generate(asked, WARM)) == by_key(engine.generate(asked, WARM))


def test_the_context_clamps_and_a_prompt_that_fills_it_is_refused(tiny_checkpoint: Path) -> None:
    engine = create({"name": "transformers", "model": str(tiny_checkpoint), "context_tokens": 20})
    assert engine.describe()["context_tokens"] == 20
    long = Sampling(temperature=1.0, max_tokens=1000)
    short = [request for request in requests(engine) if len(request.prompt) < 35]
    for completion in engine.generate(short, long):
        assert completion.prompt_tokens + completion.completion_tokens <= 20
    full = engine.render("1" * 18, prompt="{problem}", protocol=PLAIN)
    with pytest.raises(InputError, match="problem full: its prompt has 20 tokens"):
        engine.generate([*short, Request("full", 0, full, 0)], long)
    with pytest.raises(InputError, match="the model has 96 positions"):
        create({"name": "transformers", "model": str(tiny_checkpoint), "context_tokens": 97})


def test_stop_strings_end_a_response_and_are_cut_off(engine: Any) -> None:
    asked = requests(engine)
    free = by_key(engine.generate(asked, WARM))
    stops = tuple({completion.text[3:5] for completion in free.values() if completion.text[3:5]})
    stopping = WARM.model_copy(update={"stop": stops})
    assert any(stop in completion.text for stop in stops for completion in free.values())
    for key, completion in by_key(engine.generate(asked, stopping)).items():
        ends = [at for stop in stops if (at := free[key].text.find(stop)) >= 0]
        if ends:
            assert completion.text == free[key].text[: min(ends)]
            assert completion.finish_reason == FinishReason.STOP
        else:
            assert completion == free[key]


def test_a_forced_start_is_read_by_the_model_and_stands_in_the_text(engine: Any) -> None:
    protocol = Protocol(thinking=Thinking(forced=True))
    [text] = {
        engine.render("1", prompt="{problem}", protocol=protocol),
    }
    assert text == "<user>1<assistant><think>\n"
    for completion in engine.generate(requests(engine, protocol=protocol), WARM):
        assert completion.text.startswith("<think>\n")
    assert forced_start("…<think>", Thinking()) == "<think>"
    assert forced_start("…<think>\n", Thinking(kind="none")) == ""


def test_unknown_names_options_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="known: openai, replay, transformers, vllm"):
        create({"name": "other"})
    with pytest.raises(InputError, match="unknown option 'temperature'"):
        create({"name": "transformers", "model": "x", "temperature": 1})
    for name in ("transformers", "vllm"):
        with pytest.raises(InputError, match="no checkpoint folder"):
            create({"name": name, "model": str(tmp_path)})
    assert set(names()) == {"openai", "replay", "transformers", "vllm"}


@given(st.integers(0, 2**31 - 1), st.integers(0, 10**6))
def test_a_uniform_number_depends_on_seed_and_step_alone(seed: int, step: int) -> None:
    alone = uniforms(np.array([seed]), np.array([step]))
    among = uniforms(np.array([1, seed, 5]), np.array([7, step, step]))
    assert 0 <= alone[0] < 1
    assert among[1] == alone[0]


def test_uniform_numbers_fill_the_interval_evenly_along_both_axes() -> None:
    steps = np.arange(200_000)
    for values in (
        uniforms(np.full_like(steps, 3), steps),
        uniforms(steps, np.full_like(steps, 3)),
    ):
        counts, _ = np.histogram(values, bins=100, range=(0, 1))
        chi_squared = ((counts - 2000.0) ** 2 / 2000.0).sum()
        assert 50 < chi_squared < 160  # 99 degrees of freedom: mean 99, deviation 14
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12, unique=True),
    st.floats(0.05, 1.0),
    st.floats(0.2, 2.0),
)
def test_tokens_are_drawn_from_the_nucleus_in_proportion(
    logits: list[float], top_p: float, temperature: float
) -> None:
    import torch

    from evaluator.engines.sampling import draw_tokens

    weights = np.exp((np.array(logits) - max(logits)) / temperature)
    expected = weights / weights.sum()
    kept, mass = [], 0.0
    for token in np.argsort(-expected):  # Holtzman et al. 2020, §3.1, by hand
        kept.append(token)
        mass += expected[token]
        if mass >= top_p:
            break
    nucleus = np.zeros_like(expected)
    nucleus[kept] = expected[kept] / mass
    grid = 4000
    tokens = draw_tokens(
        torch.tensor([logits]).expand(grid, -1),
        temperature=temperature,
        top_p=top_p,
        uniform=(torch.arange(grid, dtype=torch.float64) + 0.5) / grid,
    )
    drawn = np.bincount(tokens.numpy(), minlength=len(logits)) / grid
    # A probability that is within rounding of top_p may fall on either side.
    if abs(mass - top_p) > 1e-5 and abs(mass - expected[kept[-1]] - top_p) > 1e-5:
        assert np.abs(drawn - nucleus).max() <= 2 / grid
    assert draw_tokens(
        torch.tensor([logits]), temperature=0, top_p=top_p, uniform=torch.zeros(1)
    ).item() == int(np.argmax(logits))


def folder_with(tmp_path: Path, template: str | None) -> Path:
    write_tokenizer(tmp_path, chat_template=template)
    config = {"model_type": "qwen2", "max_position_embeddings": 64, "eos_token_id": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_checkpoint_without_template_needs_a_word_of_the_protocol(tmp_path: Path) -> None:
    prompter = Prompter(folder_with(tmp_path, None))
    with pytest.raises(InputError, match="the checkpoint has none"):
        prompter.render("1+1", prompt="{problem}=", protocol=PLAIN)
    plain = Protocol(chat_template="none", system_prompt="Add.")
    assert prompter.render("1+1", prompt="{problem}=", protocol=plain) == "Add.\n\n1+1="
    own = Protocol(chat_template="Q: {{ messages[0].content }} A:")
    assert prompter.render("{x}", prompt="{problem}", protocol=own) == "Q: {x} A:"
    with pytest.raises(InputError, match="it does not render"):
        prompter.render("1", prompt="{problem}", protocol=Protocol(chat_template="{% if %}"))
    with pytest.raises(InputError, match="does not contain the problem"):
        prompter.render("1", prompt="{problem}", protocol=Protocol(chat_template="hello"))


@pytest.mark.parametrize(
    ("template", "refused"),
    [
        ("{{ messages[-1].content }}", False),
        ("<user>{{ messages[-1].content }}<assistant>", False),
        ("You are a model made by somebody. {{ messages[-1].content }}", True),
        (
            "{% if messages[0].role != 'system' %}You are a model made by somebody.{% endif %}"
            "<user>{{ messages[-1].content }}",
            False,  # an empty system prompt silences it
        ),
    ],
)
def test_a_templates_own_system_prompt_is_silenced_or_refused(
    tmp_path: Path, template: str, refused: bool
) -> None:
    prompter = Prompter(folder_with(tmp_path, template))
    if refused:
        with pytest.raises(InputError, match="a system prompt of its own"):
            prompter.render("1+1", prompt="{problem}", protocol=PLAIN)
    else:
        assert "somebody" not in prompter.render("1+1", prompt="{problem}", protocol=PLAIN)


def published(name: str, tmp_path: Path) -> Prompter:
    source = TOKENIZERS / name
    (tmp_path / "tokenizer.json").write_bytes(
        gzip.decompress((source / "tokenizer.json.gz").read_bytes())
    )
    shutil.copy(source / "tokenizer_config.json", tmp_path)
    config = {"model_type": "qwen2", "max_position_embeddings": 32768, "eos_token_id": 151643}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return Prompter(tmp_path)


@pytest.mark.shared_data
def test_qwens_template_is_kept_from_inserting_its_system_prompt(tmp_path: Path) -> None:
    prompter = published("qwen2.5", tmp_path)
    text = prompter.render("What is 1+1?", prompt="{problem}", protocol=PLAIN)
    assert text == (
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nWhat is 1+1?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    asked = Protocol(system_prompt="Answer briefly, in one line, and in English.")
    text = prompter.render("What is 1+1?", prompt="{problem}", protocol=asked)
    assert text.count("Answer briefly, in one line, and in English.") == 1
    assert "Alibaba" not in text


@pytest.mark.shared_data
def test_r1s_template_gives_one_bos_and_its_forced_start_is_seen(tmp_path: Path) -> None:
    prompter = published("deepseek-r1-distill-qwen", tmp_path)
    bos = "<｜begin▁of▁sentence｜>"
    for forced in (False, True):
        protocol = Protocol(thinking=Thinking(forced=forced))
        text = prompter.render("What is 1+1?", prompt="{problem}", protocol=protocol)
        assert text == f"{bos}<｜User｜>What is 1+1?<｜Assistant｜><think>\n"
        assert forced_start(text, protocol.thinking) == "<think>\n"
        ids = prompter.encode(Request("p", 0, text, 0), context=32768)
        assert ids.count(prompter.tokenizer.bos_token_id) == 1
    plain = prompter.render("1", prompt="{problem}", protocol=Protocol(chat_template="none"))
    assert plain == f"{bos}1"
