"""Our training beside TRL's SFTTrainer, on this CPU: ``python -m bench.sft``.

First agreement: the losses of 50 steps on the same data, in the same order, with the same settings.
Then speed: supervised tokens per second and peak memory, short and long sequences, with and without
gradient checkpointing, the same model (Qwen2's architecture with random weights and 32,768 words),
data, precision (float32), optimizer and sequences per step. TRL runs in each way that might be its
best: packed, or padded with sequences of like length together; with its own chunked loss, or with
the loss of transformers over whole logits, which it can only be given by overriding a method. All
ways run by turns, so that others' work on the machine meets all of them alike; of each the best
round counts, of as many rounds as ``--minutes`` has room for. TRL lives in a virtual environment of
its own under var/bench, on our torch and transformers.

Each training's result is kept until the whole comparison is done: started again after an
interruption, with the same code, it goes on where it was.

``--context`` measures something else: one step over one sequence of 4,096 to 32,768 tokens, whose
logits alone would take up to 4 GiB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
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
KEPT = FOLDER / "kept"
SPANS = {"short": (40, 240), "long": (1500, 2500)}  # tokens of a sequence, from … to
COUNTS = {"short": 64, "long": 4}  # sequences; a quarter of them makes a step
CONTEXTS = (4096, 8192, 16384, 32768)
VOCABULARY = 32768
MICRO_BATCH_TOKENS = 2560
TRAINING = {"learning_rate": 1e-3, "warmup_ratio": 0.0, "micro_batch_tokens": MICRO_BATCH_TOKENS,
            "max_length_tokens": 4096, "save_seconds": 1e6, "epochs": 1}  # fmt: skip


def base(name: str = "base", positions: int = 4096, **shape: int) -> Path:
    """A checkpoint whose output layer is most of its work, as small models' are."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from distiller import toy

    folder = FOLDER / name
    torch.manual_seed(0)
    words = toy.tokenizer()
    sizes = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4,
             "num_attention_heads": 6, "num_key_value_heads": 2}  # fmt: skip
    config = Qwen2Config(
        vocab_size=VOCABULARY, max_position_embeddings=positions, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
        **sizes | shape,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def corpus_of(name: str, count: int, span: tuple[int, int], model: Path) -> Path:
    """A corpus of ``count`` sequences of digits, a tenth of each being the prompt."""
    rng = random.Random(name)
    limit = max(span[1] + 64, TRAINING["max_length_tokens"])
    recipe = Recipe(
        teacher="t", base=str(model), student="s", prompts=Prompts(set="p"),
        training=Training.model_validate(TRAINING | {"max_length_tokens": limit}),
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


@lru_cache
def code() -> str:
    """A hash of what is measured and what measures."""
    digest = hashlib.sha256(TRL.encode())
    for path in (*sorted((ROOT / "distiller").rglob("*.py")), *sorted(ROOT.glob("bench/*sft*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def train(trainer: str, label: str, spec: dict[str, Any], turn: int = 0) -> dict[str, Any]:
    """One training in a process of its own, or what an interrupted comparison kept of it."""
    path, result = FOLDER / f"{label}.json", FOLDER / f"{label}.result.json"
    kept, out = KEPT / f"{label}-{turn}.json", FOLDER / f"{label}.out"
    given = {"trainer": trainer, "out": str(out), "result": str(result), **spec}
    key = {"given": given, "code": code()}
    if kept.exists() and (earlier := json.loads(kept.read_text()))["key"] == key:
        return dict(earlier["found"])
    shutil.rmtree(out, ignore_errors=True)
    path.write_text(json.dumps(given))
    python = sys.executable if trainer == "ours" else trl_python()
    cost = measured([python, ROOT / "bench" / "_sft_peer.py", path], log=FOLDER / f"{label}.log")
    found: dict[str, Any] = json.loads(result.read_text())
    found |= {"cpu_seconds": cost.cpu_seconds, "wall_seconds": cost.wall_seconds}
    KEPT.mkdir(exist_ok=True)
    part = kept.with_suffix(".part")
    part.write_text(json.dumps({"key": key, "found": found}))
    part.replace(kept)
    return found


def agreement(model: Path) -> dict[str, Any]:
    """The largest difference of losses over 50 steps."""
    folder = corpus_of("agreement", 200, SPANS["short"], model)  # of four a step
    training = TRAINING | {"batch_size": 4, "gradient_checkpointing": False}
    rows = rows_of(folder, Training.model_validate(training))
    spec = {"base": str(model), "corpus": str(folder), "rows": str(rows), "training": training}
    one = train("ours", "agreement-ours", spec)
    padded = {"packing": False, "rows_at_once": 4, "accumulation": 1, "max_length": 4096,
              "order": "sequential", "loss": "own"}  # fmt: skip
    other = train("trl", "agreement-trl", spec | padded)
    pairs = list(zip(one["losses"], other["losses"], strict=True))
    assert len(pairs) == 50
    return {
        "steps": len(pairs),
        "first": pairs[0],
        "last": pairs[-1],
        "largest_difference": max(abs(a - b) for a, b in pairs),
    }


def ways(batch: int, longest: int, tokens: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """(trainer, settings) of each way; all of them do the same steps over ``tokens`` in four."""
    at_once = max(1, min(batch, MICRO_BATCH_TOKENS // longest))
    packs = -(-tokens // MICRO_BATCH_TOKENS)
    packed = {"packing": True, "rows_at_once": 1, "accumulation": max(1, packs // 4),
              "max_length": MICRO_BATCH_TOKENS, "order": "sequential"}  # fmt: skip
    padded = {"packing": False, "rows_at_once": at_once, "order": "group_by_length",
              "accumulation": max(1, batch // at_once), "max_length": 4096}  # fmt: skip
    return {
        "ours": ("ours", {}),
        "trl packed": ("trl", packed | {"loss": "own"}),
        "trl padded": ("trl", padded | {"loss": "own"}),
        "trl packed, transformers' loss": ("trl", packed | {"loss": "plain"}),
        "trl padded, transformers' loss": ("trl", padded | {"loss": "plain"}),
    }


def speed(
    name: str, span: tuple[int, int], model: Path, rounds: int, until: float
) -> dict[str, Any]:
    """Every way by turns; per way the best round, because others may use the machine.

    After the first round, another one begins only where it can be expected to end by ``until``, by
    the monotonic clock.
    """
    count = COUNTS[name]
    folder = corpus_of(name, count, span, model)
    examples, manifest = corpus.read(folder)
    plans: dict[str, tuple[str, str, dict[str, Any]]] = {}
    for checkpointing in (False, True):
        training = TRAINING | {"batch_size": count // 4, "gradient_checkpointing": checkpointing}
        rows = rows_of(folder, Training.model_validate(training))
        spec = {"base": str(model), "corpus": str(folder), "rows": str(rows), "training": training}
        chosen = ways(count // 4, span[1], int(examples.lengths.sum()))
        for way, (trainer, more) in chosen.items():
            label = f"{way}{', checkpointed' if checkpointing else ''}"
            file = f"{name}-{re.sub('[^a-z]+', '-', label)}"
            plans[label] = (trainer, file, spec | more)
    runs = by_turns(plans, rounds, until, lambda label, one: print(
        name, label, rates([one], manifest), flush=True
    ))  # fmt: skip
    return {label: rates(found, manifest) for label, found in runs.items()}


def by_turns(
    plans: dict[str, tuple[str, str, dict[str, Any]]],
    rounds: int,
    until: float,
    tell: Callable[[str, dict[str, Any]], None],
) -> dict[str, list[dict[str, Any]]]:
    """What each way (trainer, label, settings) came to in each round."""
    runs: dict[str, list[dict[str, Any]]] = {label: [] for label in plans}
    for number in range(rounds):
        latest = sum(found[-1]["wall_seconds"] for found in runs.values() if found)
        if number and time.monotonic() + latest > until:
            print(f"no time for round {number + 1}", flush=True)
            break
        for label, plan in plans.items():
            runs[label].append(train(*plan, turn=number))
            tell(label, runs[label][-1])
    return runs


def rates(runs: Sequence[dict[str, Any]], manifest: dict[str, Any]) -> dict[str, Any]:
    """Of the best round: supervised tokens per second of wall and of CPU time, memory."""
    tokens = manifest["supervised_tokens"]
    wall = [tokens / (one["end_wall"] - one["start_wall"]) for one in runs]
    cpu = [tokens / (one["end_cpu"] - one["start_cpu"]) for one in runs]
    return {
        "supervised_tokens_per_second": round(max(wall)),
        "supervised_tokens_per_cpu_second": round(max(cpu)),
        "every_round": [[round(a), round(b)] for a, b in zip(wall, cpu, strict=True)],
        "peak_mib": round(min(one["end_peak"] for one in runs)),
        "before_mib": round(min(one["start_peak"] for one in runs)),
    }


def contexts() -> dict[str, Any]:
    """One step over one sequence of each length: seconds, and the memory that it took."""
    model = base("narrow", max(CONTEXTS), hidden_size=64, intermediate_size=256,
                 num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)  # fmt: skip
    found: dict[str, Any] = {}
    for length in CONTEXTS:
        digits = length - 5  # and the tags, the markers and the end
        folder = corpus_of(f"context-{length}", 1, (digits, digits), model)
        _, manifest = corpus.read(folder)
        training = TRAINING | {"batch_size": 1, "gradient_checkpointing": True,
                               "max_length_tokens": length}  # fmt: skip
        spec = {"base": str(model), "corpus": str(folder), "training": training}
        one = train("ours", f"context-{length}", spec)
        found[str(length)] = {
            "tokens": manifest["tokens"],
            "seconds": round(one["end_wall"] - one["start_wall"], 1),
            "cpu_seconds": round(one["end_cpu"] - one["start_cpu"], 1),
            "peak_mib": round(one["end_peak"]),
            "step_mib": round(one["end_peak"] - one["start_peak"]),
            "logits_alone_mib": round(manifest["tokens"] * VOCABULARY * 4 / 2**20),
        }
        print(length, found[str(length)], flush=True)
    return found


def main() -> None:
    """Measure the parts that were asked for; print and keep each as soon as it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="at most")
    parser.add_argument("--minutes", type=float, default=28, help="for further rounds to end in")
    parser.add_argument("--context", action="store_true", help="long contexts alone")
    parser.add_argument("--only", choices=["agreement", *SPANS], help="one part of the comparison")
    given, began = parser.parse_args(), time.monotonic()
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = base()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "agreement": lambda: agreement(model),
        **{
            name: partial(
                speed, name, span, model, given.rounds,
                began + 60 * given.minutes * number / len(SPANS),
            )
            for number, (name, span) in enumerate(SPANS.items(), 1)
        },
    }  # fmt: skip
    chosen = ["context"] if given.context else [given.only] if given.only else list(parts)
    for name in chosen:
        found = (parts | {"context": contexts})[name]()
        print(name, json.dumps(found, indent=1), flush=True)
        versions = {} if name == "context" else {"trl": TRL.partition("==")[2]}
        write(f"sft_{name}", versions | found, packages=["torch", "transformers", "accelerate"])
    for name in chosen:  # the next comparison is measured anew
        for path in KEPT.glob(f"{name}-*"):
            path.unlink()


if __name__ == "__main__":
    main()
