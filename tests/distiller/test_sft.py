"""The training loop: what is learnt, what is weighed, and what a kill changes (nothing)."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from distiller import corpus, optim, packing, sft, students
from distiller.corpus import Encoder
from distiller.errors import InputError, TrainingError
from distiller.parallel import World
from distiller.recipe import Training
from tests.distiller.samples import FAST, make_tiny, recipe, run, sums, trace


@pytest.fixture(scope="module")
def thirty_two(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sums(32, tiny_qwen, tmp_path_factory.mktemp("thirty-two") / "corpus")


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_thirty_two_examples_can_be_learnt_by_heart(
    kind: str, thirty_two: Path, tmp_path: Path
) -> None:
    """Loss below 0.05, and every response written word by word when its prompt is given."""
    base = make_tiny(kind, tmp_path / "base")
    steps: list[dict[str, float]] = []
    trained = run(
        thirty_two, base, tmp_path / "out",
        training={"epochs": 75, "batch_size": 8, "learning_rate": 1e-2},
        on_step=lambda step, values: steps.append({"step": step, **values}),
    )  # fmt: skip
    assert trained.steps == 300
    assert steps[0]["loss"] > 3
    assert trained.loss == steps[-1]["loss"] < 0.05
    assert set(steps[0]) == {"step", "loss", "learning_rate", "grad_norm", "tokens_per_second"}
    tokenizer = AutoTokenizer.from_pretrained(trained.checkpoint)
    model = AutoModelForCausalLM.from_pretrained(trained.checkpoint)
    for example in corpus.read(thirty_two)[0]:
        prompt = torch.tensor([example.input_ids[: example.prompt_tokens]])
        ids = model.generate(input_ids=prompt, max_new_tokens=64, do_sample=False)[0]
        assert ids.tolist() == list(example.input_ids), tokenizer.decode(ids)


def test_first_loss_is_the_mean_over_response_tokens(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    """Brute force: one sequence at a time, no padding, one token at a time."""
    examples, _ = corpus.read(eight)
    model = AutoModelForCausalLM.from_pretrained(tiny_qwen)
    total, count = 0.0, 0
    for example in examples:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example.input_ids])).logits[0].double()
        for at in range(example.prompt_tokens, len(example.input_ids)):
            total -= torch.log_softmax(logits[at - 1], -1)[example.input_ids[at]].item()
            count += 1
    losses: list[float] = []
    run(
        eight, tiny_qwen, tmp_path / "out", training={"batch_size": 8, "epochs": 1},
        on_step=lambda step, values: losses.append(values["loss"]),
    )  # fmt: skip
    assert losses[0] == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize(
    "other",
    [{"micro_batch_tokens": 50}, {"packing": False}, {"gradient_checkpointing": True}],
    ids=["split", "unpacked", "checkpointed"],
)
def test_how_a_step_is_cut_up_changes_nothing(
    other: dict[str, Any], eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    run(eight, tiny_qwen, tmp_path / "whole", training={"epochs": 1})
    run(eight, tiny_qwen, tmp_path / "other", training={"epochs": 1, **other})
    whole, cut = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "other"))
    for name, weights in whole.items():
        torch.testing.assert_close(weights, cut[name], rtol=2e-3, atol=2e-5)


KILLED = """
import os, signal, sys
from pathlib import Path
from distiller import sft
from distiller.parallel import World
from distiller.recipe import Training
corpus, base, out, resume = map(Path, sys.argv[1:5])
def progress(done, total, tokens):
    if done == 7:
        os.kill(os.getpid(), signal.SIGKILL)
sft.train(corpus, base, Training.model_validate_json(sys.argv[5]), out, resume=resume,
          on_progress=progress)
"""


@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8, "dropout": 0.1}])
def test_a_killed_training_ends_in_the_same_weights(
    lora: dict[str, Any] | None, eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    """Killed in the middle of an epoch, with several micro-batches a step, packed."""
    training = Training.model_validate(
        FAST
        | {"save_seconds": 1e-9, "epochs": 6, "batch_size": 3, "micro_batch_tokens": 50}
        | {"lora": lora, "held_out_share": 0.25}
    )
    resume, out = tmp_path / "resume", tmp_path / "out"
    arguments = [str(path) for path in (eight, tiny_qwen, out, resume)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments, training.model_dump_json()],
        capture_output=True, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not out.exists()
    assert [path.name for path in resume.iterdir()] == ["step-6"]
    seen: list[int] = []
    resumed = sft.train(
        eight, tiny_qwen, training, out, resume=resume,
        on_progress=lambda done, total, tokens: seen.append(done),
    )  # fmt: skip
    assert seen[0] == 6  # the step that was killed is done again
    unbroken = sft.train(eight, tiny_qwen, training, tmp_path / "b", resume=tmp_path / "none")
    assert (out / "model.safetensors").read_bytes() == (
        tmp_path / "b" / "model.safetensors"
    ).read_bytes()
    assert resumed.loss == unbroken.loss
    assert not resume.exists()


def test_a_state_of_another_training_is_refused(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    class StopHereError(Exception):
        pass

    def stop(done: int, total: int, tokens: int) -> None:
        if done == 2:
            raise StopHereError

    with pytest.raises(StopHereError):
        run(eight, tiny_qwen, tmp_path / "a", training={"save_seconds": 1e-9}, on_progress=stop)
    shutil.copytree(tmp_path / "a.resume", tmp_path / "b.resume")
    with pytest.raises(TrainingError, match="belongs to another training"):
        run(eight, tiny_qwen, tmp_path / "b", training={"seed": 1})


def test_a_loss_that_is_not_finite_stops(eight: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_qwen, tmp_path / "base"))
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    model.save_pretrained(base)
    with pytest.raises(TrainingError, match=r"step 1: .* not finite"):
        run(eight, base, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    saved = (tmp_path / "out.resume.not_finite.jsonl").read_text().splitlines()
    examples = corpus.read(eight)[0]
    first = sft.plan(len(examples), Training(**FAST))[0]
    assert [json.loads(row)["problem_id"] for row in saved] == [
        examples[index].problem_id for index in first
    ]


def test_too_long_examples_are_refused_before_training(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_qwen, tmp_path / "base"))
    model = AutoModelForCausalLM.from_pretrained(base)
    model.config.max_position_embeddings = 8
    model.save_pretrained(base)
    with pytest.raises(InputError, match="only 8 positions"):
        run(eight, base, tmp_path / "out")


def test_a_quantised_base_is_refused(eight: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_qwen, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"bits": 4}}))
    with pytest.raises(InputError, match="its weights are quantised"):
        run(eight, base, tmp_path / "out")


def test_a_base_that_the_loop_would_train_otherwise_than_it_answers_is_refused(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    """Also where nobody asked preflight."""
    shape = json.loads((tiny_qwen / "config.json").read_text())
    shape = {name: shape[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers",
             "num_attention_heads", "max_position_embeddings", "eos_token_id")}  # fmt: skip
    for kind, changes, sentence in (
        ("mistral", {"sliding_window": 8}, r"a window of 8 tokens.*max_length_tokens to 8"),
        ("phi", {}, "its output layer has a bias"),
    ):
        base = Path(shutil.copytree(tiny_qwen, tmp_path / kind))
        config = AutoConfig.for_model(kind, **shape, **changes)
        AutoModelForCausalLM.from_config(config).save_pretrained(base)
        with pytest.raises(InputError, match=f"base: .*{sentence}"):
            run(eight, base, tmp_path / "out")


def test_bfloat16_saves_bfloat16(eight: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    trained = run(eight, tiny_qwen, tmp_path / "out", training={"dtype": "bfloat16"})
    tensors = load_file(trained.checkpoint / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


@given(st.integers(1, 40), st.floats(0.1, 5), st.integers(1, 9), st.integers(0, 3))
def test_plan_is_whole_permutations(count: int, epochs: float, size: int, seed: int) -> None:
    batches = sft.plan(count, Training(epochs=epochs, batch_size=size, seed=seed))
    order = [index for batch in batches for index in batch]
    assert len(order) == max(1, round(epochs * count))
    assert all(len(batch) == size for batch in batches[:-1])
    for start in range(0, len(order) - count + 1, count):
        assert sorted(order[start : start + count]) == list(range(count))


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0, 1))
def test_learning_rate_warms_up_then_falls(steps: int, warmup: float, minimum: float) -> None:
    shares = [optim.learning_rate_share(step, steps, warmup, minimum) for step in range(steps)]
    warm = math.ceil(warmup * steps)
    assert all(0 < share <= 1 for share in shares)
    assert shares[:warm] == sorted(shares[:warm])
    assert shares[warm:] == sorted(shares[warm:], reverse=True)
    assert all(share >= minimum for share in shares[warm:])


@given(
    st.lists(st.integers(2, 300), min_size=1, max_size=30),
    st.integers(1, 400),
    st.integers(1, 4),
)
@settings(deadline=None)
def test_every_example_is_handed_out_once_and_processes_keep_step(
    lengths: list[int], capacity: int, size: int
) -> None:
    examples = [(tuple(range(length)), 1) for length in lengths]
    training = Training(micro_batch_tokens=capacity)
    handed: list[int] = []
    rounds = set()
    for rank in range(size):
        loader = sft.Loader(InMemory(examples), training, World(rank, size, torch.device("cpu")))
        packs = list(loader.micro_batches(range(len(lengths))))
        rounds.add(len(packs))
        for packed in packs:
            if (packed.targets == packing.IGNORED).all():
                continue
            spans = packed.layout.starts.diff().tolist()
            handed += spans
            assert sum(spans) + len(spans) <= capacity or len(spans) == 1
    assert sorted(handed) == sorted(length - 1 for length in lengths)
    assert len(rounds) == 1


class InMemory:
    """As much of a corpus as the loader asks for."""

    def __init__(self, examples: list[tuple[tuple[int, ...], int]]) -> None:
        self.examples = [np.array(ids) for ids, _ in examples]
        self.rows = np.array(
            [(len(ids), prompt) for ids, prompt in examples],
            dtype=[("tokens", int), ("prompt_tokens", int)],
        )

    def tokens(self, index: int) -> np.ndarray:
        return self.examples[index]


def test_adapters_are_merged_into_a_plain_checkpoint(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    """The exported model computes what the adapted one did, under the base's names."""
    options = {"lora": {"rank": 8, "alpha": 64}, "epochs": 60, "batch_size": 8}
    losses: list[float] = []
    trained = run(
        eight, tiny_qwen, tmp_path / "out", training=options,
        on_step=lambda step, values: losses.append(values["loss"]),
    )  # fmt: skip
    assert losses[-1] < losses[0] - 0.3
    before, after = (load_file(f / "model.safetensors") for f in (tiny_qwen, trained.checkpoint))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj.weight" in name}
    again: list[float] = []
    run(
        eight, trained.checkpoint, tmp_path / "again", training={"epochs": 1, "batch_size": 8},
        on_step=lambda step, values: again.append(values["loss"]),
    )  # fmt: skip
    assert again[0] <= losses[-1] + 1e-4  # one step further than the last logged loss


def test_the_held_out_loss_is_of_problems_that_are_not_taught(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    settings = {"held_out_share": 0.25, "epochs": 40, "evaluations": 4}
    found: dict[int, float] = {}
    run(
        eight, tiny_qwen, tmp_path / "out", training=settings,
        on_step=lambda step, values: (
            found.update({step: values["held_out_loss"]}) if "held_out_loss" in values else None
        ),
    )  # fmt: skip
    assert sorted(found) == [15, 30, 45, 60]
    examples = corpus.read(eight)[0]
    taught, held_out = sft.split(examples, Training(**(FAST | settings)))
    assert len(held_out) == 2
    ids = [{examples[index].problem_id for index in side} for side in (taught, held_out)]
    assert not ids[0] & ids[1]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    total, count = 0.0, 0
    for index in held_out:
        tokens, prompt = torch.tensor([examples[index].input_ids]), examples[index].prompt_tokens
        with torch.no_grad():
            logits = model(input_ids=tokens).logits[0, prompt - 1 : -1].double()
        total += torch.nn.functional.cross_entropy(logits, tokens[0, prompt:], reduction="sum")
        count += tokens.shape[1] - prompt
    assert found[60] == pytest.approx(float(total) / count, rel=1e-4)


def test_a_stretched_student_keeps_its_positions(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_qwen, tmp_path / "base"))
    model = AutoModelForCausalLM.from_pretrained(base)
    model.config.max_position_embeddings = 16
    model.save_pretrained(base)
    with pytest.raises(InputError, match=r"set training\.rope"):
        run(eight, base, tmp_path / "out")
    rope = {"kind": "yarn", "factor": 4.0}
    trained = run(eight, base, tmp_path / "out", training={"rope": rope})
    config = json.loads((trained.checkpoint / "config.json").read_text())
    assert config["max_position_embeddings"] == 64
    assert config["rope_parameters"]["rope_type"] == "yarn"
    assert config["rope_parameters"]["original_max_position_embeddings"] == 16


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    """Files of the child may have 20,000 bytes: the state does not fit, and no torn one is left."""
    program = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));" + KILLED.replace("7", "-1")
    )
    training = Training(**FAST, save_seconds=1e-9)
    arguments = [str(p) for p in (eight, tiny_qwen, tmp_path / "out", tmp_path / "resume")]
    failed = subprocess.run(
        [sys.executable, "-c", program, *arguments, training.model_dump_json()],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert "TrainingError: resume: the state cannot be written" in failed.stderr
    assert not list((tmp_path / "resume").iterdir())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_disk_that_is_full_at_the_end_loses_no_more_than_the_student(
    eight: Path, tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The state of the step before stays, and started again the training ends as it would have."""

    def full(self: Any, *_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    settings = {"save_seconds": 1e-9}
    with pytest.raises(TrainingError, match=r"^out: .*No space left on device.*free some space"):
        run(eight, tiny_qwen, tmp_path / "out", training=settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.resume"]
    monkeypatch.undo()
    seen: list[int] = []
    run(
        eight, tiny_qwen, tmp_path / "out", training=settings,
        on_progress=lambda done, total, tokens: seen.append(done),
    )  # fmt: skip
    assert seen == [3, 4]
    run(eight, tiny_qwen, tmp_path / "b", training=settings)
    one, other = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("out", "b"))
    assert one == other


def test_flops_are_those_that_torch_counts(tiny_qwen: Path) -> None:
    """Matrix products forward and backward; attention's are left to its own formula."""
    student = students.load(tiny_qwen, Training(**FAST), World(0, 1, torch.device("cpu")))
    words = student.model.get_output_embeddings().weight
    vectors = sum(each.numel() for each in student.parameters() if each.ndim < 2)
    packed = packing.pack([(list(range(5, 105)), 1)], "cpu")
    with FlopCounterMode(display=False) as counter:
        student(packed).backward()
    found = optim.step_flops(
        student.model.config, student.multiplied_parameters() - vectors, [99], frozen=False
    )
    attention = 12 * 1 * 2 * 16 * 99 * 100 / 2  # layers, heads, head width, causal pairs
    products = sum(
        count for operation, count in counter.get_flop_counts()["Global"].items()
        if "attention" not in str(operation)
    )  # fmt: skip
    uncounted = 2 * words.numel() * 99  # addmm_, by which the loss adds to the words' gradient
    assert found - attention == products + uncounted


def test_the_share_of_the_peak_is_reported_where_the_device_has_one(
    eight: Path, tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optim, "peak_flops", lambda device: 1e9)
    seen: list[dict[str, float]] = []
    run(eight, tiny_qwen, tmp_path / "out", on_step=lambda step, values: seen.append(dict(values)))
    examples, _ = corpus.read(eight)
    config = AutoConfig.from_pretrained(tiny_qwen)
    parameters = AutoModelForCausalLM.from_pretrained(tiny_qwen).num_parameters()
    words = config.vocab_size * config.hidden_size
    parameters -= 0 if config.tie_word_embeddings else words
    batches = sft.plan(len(examples), Training(**FAST))
    for values, batch in zip(seen, batches, strict=True):
        lengths = [len(examples[index].input_ids) for index in batch]
        flops = optim.step_flops(config, parameters, lengths, frozen=False)
        seconds = sum(lengths) / values["tokens_per_second"]
        assert values["mfu"] == pytest.approx(flops / seconds / 1e9)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("kind", "name"),
    [("qwen2", "qwen2.5"), ("qwen3", "deepseek-r1-distill-qwen"), ("llama", "qwen2.5")],
)
def test_students_with_real_tokenizers_are_trained(
    kind: str, name: str, shared_tokenizer: Any, tmp_path: Path
) -> None:
    """The loss falls, the turn's ending token is learnt, and the student keeps the tokenizer."""
    source = shared_tokenizer(name)
    words = AutoTokenizer.from_pretrained(source)
    base = make_tiny(kind, tmp_path / "base", vocabulary=len(words))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / file, base / file)
    for file in ("chat_template.jinja", "special_tokens_map.json"):
        (base / file).unlink(missing_ok=True)
    chosen, text = recipe(base), "<think>\nTwo.\n</think>\n\n\\boxed{2}"
    encoder = Encoder(base, chosen)
    corpus.build([trace(text)], encoder=encoder, recipe=chosen, out=tmp_path / "corpus")
    losses: list[float] = []
    trained = run(
        tmp_path / "corpus", base, tmp_path / "out",
        training={"epochs": 12, "batch_size": 1, "max_length_tokens": 200},
        on_step=lambda step, values: losses.append(values["loss"]),
    )  # fmt: skip
    assert losses[0] > 10  # of some 130,000 words
    assert losses[-1] < losses[0] - 2
    (example,) = corpus.read(tmp_path / "corpus")[0]
    kept = AutoTokenizer.from_pretrained(trained.checkpoint)
    assert kept.convert_tokens_to_ids(kept.eos_token) == example.input_ids[-1] == encoder.end_id
    assert kept.get_vocab() == words.get_vocab()
