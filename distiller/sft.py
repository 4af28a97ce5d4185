"""Supervised fine-tuning: one loop, read top to bottom.

The loss is the mean over the supervised tokens of a whole optimizer step, however they are spread
over sequences and micro-batches (averaging per micro-batch would weigh long responses down). The
order of the examples depends on the seed alone, so a training that was killed goes on from its
resume state and ends, on the same CPU, in the same weights bit for bit.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from distiller import checkpoints, corpus, templates
from distiller.corpus import Example
from distiller.errors import InputError, TrainingError
from distiller.recipe import Training
from evaluator.records import content_hash

# Padded tokens that go through the model at once; longer sequences go alone.
MICRO_BATCH_TOKENS = 16_384
LOGGED_STEPS = 200  # a training reports about so many points
# Models this small gain nothing from a second thread, and lose much when processes compete.
SINGLE_THREAD_PARAMETERS = 2_000_000
BETAS = (0.9, 0.95)
STATE_FILE = "state.pt"

OnStep = Callable[[int, Mapping[str, float]], None]
OnProgress = Callable[[int, int, int], None]  # steps done, steps in all, tokens seen


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training ended in. ``loss`` is the last logged one, in nats per supervised token."""

    checkpoint: Path
    content_hash: str
    steps: int
    loss: float


def train(
    corpus_folder: Path,
    base_model: Path,
    training: Training,
    out: Path,
    *,
    resume: Path,
    device: str = "cpu",
    on_step: OnStep = lambda step, values: None,
    on_progress: OnProgress = lambda done, total, tokens: None,
) -> Trained:
    """Fine-tune ``base_model`` on the corpus and write the checkpoint folder ``out``.

    ``resume`` is a folder for the resume state; where it holds one of this very training, the
    training goes on from there. ``out`` appears only when it is complete. Raises CorpusError for
    a corpus that teaches nothing and TrainingError for a loss or gradient that is not finite.
    """
    disable_progress_bar()  # loading and saving have bars of their own; a log needs none
    examples, manifest = corpus.read(corpus_folder)
    base_hash = checkpoints.inspect(base_model).content_hash
    identity = content_hash(
        [corpus.manifest_hash(manifest), base_hash, training.model_dump(mode="json"), device]
    )
    batches = plan(len(examples), training)
    steps = len(batches)
    log = _Log(on_step, every=max(1, steps // LOGGED_STEPS))
    state = _begin(base_model, training, steps, device, log)
    _require_trainable(state.model, examples)
    _load_state(resume, identity, state, device)
    tokens_seen = sum(len(examples[i].input_ids) for batch in batches[: state.step] for i in batch)
    on_progress(state.step, steps, tokens_seen)
    saved_at = time.monotonic()

    for indices in batches[state.step :]:
        batch = [examples[index] for index in indices]
        supervised = sum(example.supervised_tokens for example in batch)
        loss_sum = 0.0
        state.optimizer.zero_grad()
        for rows in micro_batches(batch):
            input_ids, attention_mask, labels = (part.to(device) for part in collate(rows))
            with torch.autocast(
                torch.device(device).type, torch.bfloat16, enabled=training.dtype == "bfloat16"
            ):
                part_sum = _loss_sum(state.model, input_ids, attention_mask, labels)
            (part_sum / supervised).backward()  # type: ignore[no-untyped-call]
            loss_sum += part_sum.item()
        norm = float(
            torch.nn.utils.clip_grad_norm_(state.model.parameters(), training.max_grad_norm)
        )
        if not (math.isfinite(loss_sum) and math.isfinite(norm)):
            raise TrainingError(
                f"training: step {state.step + 1}: the loss ({loss_sum / supervised}) or the "
                f"gradient's norm ({norm}) is not finite; lower training.learning_rate."
            )
        learning_rate = float(state.schedule.get_last_lr()[0])
        state.optimizer.step()
        state.schedule.step()
        state.step += 1
        tokens = sum(len(example.input_ids) for example in batch)
        tokens_seen += tokens
        log.add(loss_sum, supervised, tokens)
        log.maybe(state.step, last=state.step == steps, norm=norm, learning_rate=learning_rate)
        on_progress(state.step, steps, tokens_seen)
        if time.monotonic() - saved_at >= training.save_seconds and state.step < steps:
            _save_state(resume, identity, state)
            saved_at = time.monotonic()

    note = {"training": training.model_dump(mode="json"), "corpus": manifest, "base": base_hash}
    _save_checkpoint(state.model, base_model, out, dtype=training.dtype, note=note)
    shutil.rmtree(resume, ignore_errors=True)
    return Trained(out, checkpoints.inspect(out).content_hash, steps, log.last_loss)


@dataclass(slots=True)
class _State:
    """All that changes during a training."""

    model: Any
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    log: _Log
    step: int = 0  # optimizer steps done


def _begin(base_model: Path, training: Training, steps: int, device: str, log: _Log) -> _State:
    """The state before the first step: the base's weights in float32."""
    torch.manual_seed(training.seed)
    model = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32).to(device)
    if device == "cpu" and model.num_parameters() < SINGLE_THREAD_PARAMETERS:
        torch.set_num_threads(1)
    model.train()
    optimizer = torch.optim.AdamW(_parameter_groups(model, training), betas=BETAS)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_share(step, steps, training.warmup_ratio)
    )
    return _State(model, optimizer, schedule, log)


def plan(count: int, training: Training) -> list[list[int]]:
    """Indices of the examples of every optimizer step.

    Each epoch is a permutation of its own, drawn from the seed; a fraction of an epoch takes the
    first part of one. Every step is full but the last.
    """
    generator = torch.Generator().manual_seed(training.seed)
    wanted = max(1, round(training.epochs * count))
    order: list[int] = []
    while len(order) < wanted:
        order += torch.randperm(count, generator=generator).tolist()
    order = order[:wanted]
    size = training.batch_size
    return [order[start : start + size] for start in range(0, wanted, size)]


def learning_rate_share(step: int, steps: int, warmup_ratio: float) -> float:
    """Share of the peak rate at ``step`` (from 0): linear warm-up, then a cosine towards 0."""
    warm = math.ceil(warmup_ratio * steps)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def micro_batches(batch: Sequence[Example]) -> Iterator[list[Example]]:
    """Split a step's examples, sorted by length, so that each part pads to few enough tokens."""
    rows: list[Example] = []
    for example in sorted(batch, key=lambda example: len(example.input_ids)):
        if rows and (len(rows) + 1) * len(example.input_ids) > MICRO_BATCH_TOKENS:
            yield rows
            rows = []
        rows.append(example)
    yield rows


def collate(rows: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(input ids, attention mask, labels), each (B, T), padded on the right.

    Labels are -100 on the prompt and on padding. Padding is told by position, never by id.
    """
    longest = max(len(row.input_ids) for row in rows)
    input_ids = torch.zeros(len(rows), longest, dtype=torch.long)
    attention_mask = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), -100)
    for index, row in enumerate(rows):
        ids = torch.tensor(row.input_ids)
        input_ids[index, : len(ids)] = ids
        attention_mask[index, : len(ids)] = 1
        labels[index, row.prompt_tokens : len(ids)] = ids[row.prompt_tokens :]
    return input_ids, attention_mask, labels


def _loss_sum(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Summed cross-entropy in nats over supervised tokens; logits are made for those alone."""
    hidden = model.base_model(
        input_ids=input_ids[:, :-1], attention_mask=attention_mask[:, :-1], use_cache=False
    ).last_hidden_state  # (B, T-1, C)
    targets = labels[:, 1:]  # (B, T-1)
    supervised = targets != -100
    logits = model.get_output_embeddings()(hidden[supervised])  # (supervised tokens, vocabulary)
    return torch.nn.functional.cross_entropy(logits.float(), targets[supervised], reduction="sum")


def _parameter_groups(model: Any, training: Training) -> list[dict[str, Any]]:
    """Weight decay for matrices; none for norms and biases."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    rate = training.learning_rate
    return [
        {"params": matrices, "weight_decay": training.weight_decay, "lr": rate},
        {"params": vectors, "weight_decay": 0.0, "lr": rate},
    ]


def _require_trainable(model: Any, examples: Sequence[Example]) -> None:
    """Refuse what this loop would train wrongly, before any time is spent."""
    positions = getattr(model.config, "max_position_embeddings", None)
    longest = max(len(example.input_ids) for example in examples)
    if positions is not None and longest > positions:
        raise InputError(
            f"training.max_length_tokens: the longest example has {longest} tokens, but the base "
            f"only {positions} positions; lower the limit or use another base."
        )
    rows = model.get_input_embeddings().num_embeddings
    if (largest := max(max(example.input_ids) for example in examples)) >= rows:
        raise InputError(
            f"base: the corpus holds token {largest}, but the model knows only {rows}; the "
            "tokenizer is another model's."
        )
    for key in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(model.config, key, None) not in (None, 1, 1.0):
            raise InputError(
                f"base: its config sets {key}, which the training loop does not apply; use a base "
                "of the Qwen2 or Llama kind."
            )


class _Log:
    """Collects what happened since the last logged step."""

    def __init__(self, on_step: OnStep, *, every: int) -> None:
        self._on_step, self._every = on_step, every
        self._loss_sum, self._supervised, self._tokens = 0.0, 0, 0
        self._since = time.monotonic()
        self.last_loss = math.nan

    def add(self, loss_sum: float, supervised: int, tokens: int) -> None:
        self._loss_sum += loss_sum
        self._supervised += supervised
        self._tokens += tokens

    def maybe(self, step: int, *, last: bool, norm: float, learning_rate: float) -> None:
        """Report the first, every n-th and the last step."""
        if not (last or step == 1 or step % self._every == 0):
            return
        self.last_loss = self._loss_sum / self._supervised
        seconds = time.monotonic() - self._since
        self._on_step(
            step,
            {
                "loss": self.last_loss,
                "learning_rate": learning_rate,
                "grad_norm": norm,
                "tokens_per_second": self._tokens / max(seconds, 1e-9),
            },
        )
        self._loss_sum, self._supervised, self._tokens = 0.0, 0, 0
        self._since = time.monotonic()

    def state(self) -> list[float]:
        """What a resumed training needs to report the same losses."""
        return [self._loss_sum, float(self._supervised), self.last_loss]

    def restore(self, state: Sequence[float]) -> None:
        """Take up :meth:`state`; tokens per second count from now."""
        self._loss_sum, self._supervised, self.last_loss = state[0], int(state[1]), state[2]


def _save_state(resume: Path, identity: str, state: _State) -> None:
    """Write the resume state; a reader sees the old one or the new one, never a torn one."""
    resume.mkdir(parents=True, exist_ok=True)
    part = resume / f"{STATE_FILE}.{os.getpid()}.part"
    with part.open("wb") as file:
        torch.save(
            {
                "identity": identity,
                "step": state.step,
                "model": state.model.state_dict(),
                "optimizer": state.optimizer.state_dict(),
                "schedule": state.schedule.state_dict(),
                "rng": torch.get_rng_state(),
                "log": state.log.state(),
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    part.replace(resume / STATE_FILE)


def _load_state(resume: Path, identity: str, state: _State, device: str) -> None:
    """Put the resume state, where there is one, into ``state``."""
    path = resume / STATE_FILE
    if not path.exists():
        return
    saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    if saved["identity"] != identity:
        raise TrainingError(
            f"resume: {path} belongs to another training (corpus, base, settings or device "
            "differ); remove it or use another folder."
        )
    state.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.schedule.load_state_dict(saved["schedule"])
    torch.set_rng_state(saved["rng"].cpu())
    state.log.restore(saved["log"])
    state.step = int(saved["step"])


def _save_checkpoint(
    model: Any, base_model: Path, out: Path, *, dtype: str, note: Mapping[str, Any]
) -> None:
    """Write weights, config, tokenizer and how they were made; ``out`` appears when complete."""
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    templates.set_endings(model, note["corpus"])
    model.to(getattr(torch, dtype)).save_pretrained(part)
    templates.save_student_tokenizer(base_model, part, note["corpus"])
    (part / "training.json").write_text(json.dumps(note, indent=1, sort_keys=True) + "\n")
    checkpoints.inspect(part)
    shutil.rmtree(out, ignore_errors=True)
    os.rename(part, out)  # noqa: PTH104
