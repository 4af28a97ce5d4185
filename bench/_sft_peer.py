"""One training for bench.sft, in a process of its own: ``python bench/_sft_peer.py SPEC.json``.

SPEC names the trainer (ours or trl), the base, the corpus, the settings, and where the result goes:
losses, wall and CPU seconds from the first step to the end of the last, and the process's peak
memory by then.
With ``profile`` (ours or TRL's) the operations that took most of the time are printed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))


def peak_mib() -> float:
    """Of this process alone: getrusage's would be the parent's where that one was larger."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def mark(moment: str) -> dict[str, float]:
    """Wall and CPU seconds and the memory peak at the ``start`` or the ``end``."""
    now = {"wall": time.monotonic(), "cpu": time.process_time(), "peak": peak_mib()}
    return {f"{moment}_{name}": value for name, value in now.items()}


def ours(spec: dict[str, Any]) -> dict[str, Any]:
    from distiller import sft
    from distiller.recipe import Training

    losses: list[float] = []
    marks: dict[str, float] = {}

    def progress(done: int, total: int, tokens: int) -> None:
        if done in (0, total):
            marks.update(mark("start" if done == 0 else "end"))

    with profiled(spec):
        sft.train(
            Path(spec["corpus"]),
            Path(spec["base"]),
            Training.model_validate(spec["training"]),
            Path(spec["out"]),
            resume=Path(spec["out"]).with_suffix(".resume"),
            on_step=lambda step, values: losses.append(values["loss"]),
            on_progress=progress,
        )
    return {"losses": losses, **marks}


@contextmanager
def profiled(spec: dict[str, Any]) -> Iterator[None]:
    import torch

    if not spec.get("profile"):
        yield
        return
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        yield
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=20))


def trl(spec: dict[str, Any]) -> dict[str, Any]:
    import datasets
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    training = spec["training"]
    marks: dict[str, float] = {}
    losses: list[float] = []

    class Marks(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            marks.update(mark("start"))

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.update(mark("end"))

        def on_log(self, _: Any, state: Any, control: Any, logs: Any = None, **__: Any) -> None:
            if "loss" in (logs or {}):
                losses.append(float(logs["loss"]))

    class PlainLoss(SFTTrainer):
        """With the loss of transformers, over whole logits, which no setting of SFTTrainer has."""

        compute_loss = Trainer.compute_loss

    rows = [json.loads(line) for line in Path(spec["rows"]).read_text().splitlines()]
    arguments = SFTConfig(
        output_dir=spec["out"],
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=spec["rows_at_once"],
        gradient_accumulation_steps=spec["accumulation"],
        max_steps=-1,
        num_train_epochs=training["epochs"],
        learning_rate=training["learning_rate"],
        lr_scheduler_type="cosine",
        warmup_steps=0,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        packing=spec["packing"],
        completion_only_loss=True,  # its default trains on prompts where rows hold token ids
        max_length=spec["max_length"],
        gradient_checkpointing=training["gradient_checkpointing"],
        train_sampling_strategy=spec["order"],
        shuffle_dataset=False,
        seed=0,
    )
    model = AutoModelForCausalLM.from_pretrained(spec["base"], dtype=torch.float32)
    trainer = {"own": SFTTrainer, "plain": PlainLoss}[spec["loss"]](
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(spec["base"]),
        callbacks=[Marks()],
    )
    with profiled(spec):
        trainer.train()
    return {"losses": losses, "steps": trainer.state.global_step, **marks}


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    found = {"ours": ours, "trl": trl}[given["trainer"]](given)
    Path(given["result"]).write_text(json.dumps(found))
