"""Our training beside TRL's SFTTrainer, on this CPU: ``python -m bench.sft``.

First agreement: the losses of 50 steps on the same data, in the same order, with the same settings.
Then speed: supervised tokens per second and peak memory, short and long sequences, the same model
(Qwen2's architecture with random weights and 32,768 words), data, precision (float32), optimizer
and sequences per step. TRL runs in each way that might be its best: packed and padded, its loss
always chunked (its default), with gradient checkpointing where ours has it. TRL lives in a virtual
environment of its own under var/bench, on our torch and transformers.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from pathlib import Path
from subprocess import run
from typing import Any

from bench._machine import ROOT, WORK, measured, write
from distiller import corpus, sft
from distiller.corpus import Encoder
from distiller.filters import Trace
from distiller.recipe import Prompts, Recipe, Training
from evaluator.records import Completion, FinishReason, Problem

TRL = "trl==1.16.0"
FOLDER = WORK / "sft"
SHORT, LONG = (40, 240), (1500, 2500)  # tokens of a sequence, from … to
MICRO_BATCH_TOKENS = 2560
TRAINING = {"learning_rate": 1e-3, "warmup_ratio": 0.0, "micro_batch_tokens": MICRO_BATCH_TOKENS,
            "max_length_tokens": 4096, "save_seconds": 1e6, "epochs": 1}  # fmt: skip


def base() -> Path:
    """A checkpoint whose output layer is most of its work, as small models' are."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from distiller import toy

    folder = FOLDER / "base"
    torch.manual_seed(0)
    words = toy.tokenizer()
    config = Qwen2Config(
        vocab_size=32768, hidden_size=192, intermediate_size=768, num_hidden_layers=4,
        num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=4096,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def corpus_of(name: str, count: int, span: tuple[int, int], model: Path) -> Path:
    """A corpus of ``count`` sequences of digits, a tenth of each being the prompt."""
    rng = random.Random(name)
    recipe = Recipe(
        teacher="t", base=str(model), student="s", prompts=Prompts(set="p"),
        training=Training.model_validate(TRAINING),
    )  # fmt: skip
    traces = []
    for number in range(count):
        length = rng.randint(*span)
        digits = "".join(rng.choice("0123456789") for _ in range(length))
        problem = Problem(str(number), digits[: length // 10], "1")
        text = f"<think>{digits[length // 10 :]}</think>"
        traces.append(Trace(problem, Completion(str(number), 0, text, FinishReason.STOP)))
    out = FOLDER / name
    corpus.build(traces, encoder=Encoder(model, recipe), recipe=recipe, out=out)
    return out


def rows_of(folder: Path, training: Training) -> Path:
    """The corpus as TRL reads it, in the order in which ours takes it."""
    examples, _ = corpus.read(folder)
    path = folder / "rows.jsonl"
    with path.open("w") as file:
        for batch in sft.plan(len(examples), training):
            for index in batch:
                example = examples[index]
                mask = [0] * example.prompt_tokens + [1] * example.supervised_tokens
                file.write(
                    json.dumps({"input_ids": list(example.input_ids), "completion_mask": mask})
                    + "\n"
                )
    return path


def trl_python() -> Path:
    """TRL's interpreter; its environment is made on first use and sees our packages."""
    folder = WORK / "trl"
    if not (folder / ".done").exists():
        run([sys.executable, "-m", "venv", folder], check=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        ours = next(path for path in sys.path if path.endswith("site-packages"))
        (folder / "lib" / version / "site-packages" / "ours.pth").write_text(ours + "\n")
        run([folder / "bin" / "pip", "install", "--quiet", "--no-deps", TRL], check=True)
        (folder / ".done").touch()
    return folder / "bin" / "python"


def train(trainer: str, label: str, spec: dict[str, Any]) -> dict[str, Any]:
    """One training in a process of its own."""
    path, result = FOLDER / f"{label}.json", FOLDER / f"{label}.result.json"
    out = FOLDER / f"{label}.out"
    shutil.rmtree(out, ignore_errors=True)
    given = {"trainer": trainer, "out": str(out), "result": str(result), **spec}
    path.write_text(json.dumps(given))
    python = sys.executable if trainer == "ours" else trl_python()
    cost = measured([python, ROOT / "bench" / "_sft_peer.py", path], log=FOLDER / f"{label}.log")
    found: dict[str, Any] = json.loads(result.read_text())
    return found | {"cpu_seconds": cost.cpu_seconds}


def agreement(model: Path) -> dict[str, Any]:
    """The largest difference of losses over 50 steps."""
    folder = corpus_of("agreement", 200, SHORT, model)
    training = TRAINING | {"batch_size": 4, "gradient_checkpointing": False}
    rows = rows_of(folder, Training.model_validate(training))
    spec = {"base": str(model), "corpus": str(folder), "rows": str(rows), "training": training}
    one = train("ours", "agreement-ours", spec)
    padded = {"packing": False, "rows_at_once": 4, "accumulation": 1, "max_length": 4096}
    other = train("trl", "agreement-trl", spec | padded)
    pairs = list(zip(one["losses"], other["losses"], strict=True))
    assert len(pairs) == 50
    return {
        "steps": len(pairs),
        "first": pairs[0],
        "last": pairs[-1],
        "largest_difference": max(abs(a - b) for a, b in pairs),
    }


def speed(name: str, count: int, span: tuple[int, int], model: Path, rounds: int) -> dict[str, Any]:
    """Ours and TRL by turns; per way the best round, because others may use the machine."""
    folder = corpus_of(name, count, span, model)
    examples, manifest = corpus.read(folder)
    result: dict[str, Any] = {}
    for checkpointing in (False, True):
        batch = count // 4
        training = TRAINING | {"batch_size": batch, "gradient_checkpointing": checkpointing}
        rows = rows_of(folder, Training.model_validate(training))
        spec = {"base": str(model), "corpus": str(folder), "rows": str(rows), "training": training}
        at_once = max(1, MICRO_BATCH_TOKENS // span[1])
        packs = -(-int(examples.lengths.sum()) // MICRO_BATCH_TOKENS)
        ways = {
            "ours": ("ours", {}),
            "trl packed": ("trl", {"packing": True, "rows_at_once": 1,
                                   "accumulation": max(1, packs // 4),
                                   "max_length": MICRO_BATCH_TOKENS}),
            "trl padded": ("trl", {"packing": False, "rows_at_once": at_once,
                                   "accumulation": max(1, batch // at_once),
                                   "max_length": 4096}),
        }  # fmt: skip
        for way, (trainer, more) in ways.items():
            label = f"{name}-{way.replace(' ', '-')}{'-checkpointed' if checkpointing else ''}"
            runs = [train(trainer, label, spec | more) for _ in range(rounds)]
            rates = [manifest["supervised_tokens"] / (one["end"] - one["start"]) for one in runs]
            result[f"{way}{', checkpointed' if checkpointing else ''}"] = {
                "supervised_tokens_per_second": round(max(rates)),
                "every_round": [round(rate) for rate in rates],
                "peak_mib": round(min(one["peak"] for one in runs)),
                "before_mib": round(min(one["before"] for one in runs)),
            }
            print(
                name,
                way,
                checkpointing,
                result[f"{way}{', checkpointed' if checkpointing else ''}"],
            )
    return result


def main() -> None:
    """Measure all, print it, keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = base()
    result: dict[str, Any] = {"trl": TRL, "agreement": agreement(model)}
    print("agreement", result["agreement"])
    result["short"] = speed("short", 256, SHORT, model, rounds)
    result["long"] = speed("long", 12, LONG, model, rounds)
    write("sft", result, packages=["torch", "transformers", "accelerate"])


if __name__ == "__main__":
    main()
