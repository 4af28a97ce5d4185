"""Supervised fine-tuning: one loop, read top to bottom.

The loss is the mean over the supervised tokens of a whole optimizer step, however they are spread
over sequences, micro-batches and processes (averaging per micro-batch would weigh long responses
down). The order of the examples depends on the seed alone, so a training that was killed goes on
from its resume state and ends, on the same CPU, in the same weights bit for bit.

Around the loop: packing.py lays sequences side by side, students.py loads and
exports, losses.py makes the loss, optim.py the optimizer, parallel.py the processes, resuming.py
the state that survives a kill.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from distiller import checkpoints, corpus, optim, packing, parallel, resuming, students
from distiller.corpus import Corpus, Example
from distiller.errors import CorpusError, InputError, TrainingError
from distiller.modelling import Student
from distiller.parallel import World
from distiller.recipe import Training
from evaluator.records import content_hash

LOGGED_STEPS = 200  # a training reports about so many points
# Models this small gain nothing from a second thread, and lose much when processes compete.
SINGLE_THREAD_PARAMETERS = 2_000_000

OnStep = Callable[[int, Mapping[str, float]], None]
OnProgress = Callable[[int, int, int], None]  # steps done, steps in all, tokens seen
OnSave = Callable[[Path], None]  # the folder of a resume state, until there is a newer one


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training ended in. ``loss`` is the last logged one, in nats per supervised token."""

    checkpoint: Path
    content_hash: str
    steps: int
    loss: float


@dataclass(frozen=True, slots=True)
class Job:
    """A training, as every process of it is told."""

    corpus_folder: Path
    base_model: Path
    training: Training
    out: Path
    resume: Path


def train(
    corpus_folder: Path,
    base_model: Path,
    training: Training,
    out: Path,
    *,
    resume: Path,
    device: str = "cpu",
    processes: int | None = None,
    on_step: OnStep = lambda step, values: None,
    on_progress: OnProgress = lambda done, total, tokens: None,
    on_save: OnSave = lambda folder: None,
) -> Trained:
    """Fine-tune ``base_model`` on the corpus and write the checkpoint folder ``out``.

    ``resume`` is a folder for the resume state; where it holds one of this very training, the
    training goes on from there. ``processes`` share the work, a GPU each (None: as many as there
    are for device ``cuda``, else one; under a launcher such as torchrun this process is one of its
    own). ``out`` appears only when it is complete. Raises CorpusError for a corpus that teaches
    nothing, InputError for ``processes`` under a launcher, and TrainingError for a loss or gradient
    that is not finite.
    """
    if processes is not None and parallel.launched():
        raise InputError(
            "processes: a launcher (RANK, WORLD_SIZE) has started this one already; leave it out."
        )
    job = Job(corpus_folder, base_model, training, out, resume)

    hearers: dict[str, Callable[..., None]] = {
        "step": on_step, "progress": on_progress, "save": on_save,
    }  # fmt: skip

    def heard(kind: str, *content: Any) -> None:
        hearers[kind](*content)

    wanted = parallel.default_processes(device) if processes is None else processes
    if wanted > 1:
        trained: Trained = parallel.spawn(wanted, device, _train, job, heard)
        return trained
    world = parallel.join(device)
    try:
        return _train(world, heard if world.first else lambda *_: None, job)
    finally:
        parallel.leave(world)


def _train(world: World, say: Callable[..., None], job: Job) -> Trained:
    """The training, as one process of ``world`` sees it."""
    disable_progress_bar()  # loading and saving have bars of their own; a log needs none
    training = job.training
    examples, manifest = corpus.read(job.corpus_folder)
    loader = Loader(examples, training, world)
    students.require_trainable(
        students.config_of(job.base_model, training),
        longest=int(examples.lengths.max()),
        largest_id=max(int(examples.tokens(index).max()) for index in range(len(examples))),
    )
    taught, held_out = split(examples, training)
    batches = [[taught[at] for at in batch] for batch in plan(len(taught), training)]
    steps = len(batches)
    evaluated = evaluation_steps(steps, training) if held_out else set()
    base_hash = checkpoints.inspect(job.base_model).content_hash
    student = students.load(job.base_model, training, world)
    _choose_threads(student, world)
    parameters = students.trainable(student)
    optimizer = optim.adamw(parameters, training)
    log = _Log(lambda *content: say("step", *content), student, training, world, steps)
    identity = _identity(training, manifest, base_hash, world)
    kept = resuming.Resumable(job.resume, identity, parameters, optimizer, world)
    step = _resumed(kept, log)
    tokens_seen = sum(loader.tokens(batch) for batch in batches[:step])
    say("progress", step, steps, tokens_seen)
    saved_at = time.monotonic()

    for batch in batches[step:]:
        learning_rate = training.learning_rate * optim.learning_rate_share(
            step, steps, training.warmup_ratio, training.min_learning_rate_ratio
        )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad()
        supervised = loader.supervised(batch)
        loss = _accumulate(student, loader, batch, supervised)
        norm = float(parallel.whole(torch.nn.utils.clip_grad_norm_(
            [parameter for _, parameter in parameters], training.max_grad_norm
        )))  # fmt: skip
        if not (math.isfinite(loss) and math.isfinite(norm)):
            saved = _save_batch(job, step + 1, [examples[index] for index in batch], world)
            raise TrainingError(
                f"training: step {step + 1}: the loss ({loss}) or the gradient's norm ({norm}) is "
                f"not finite; lower training.learning_rate, or look at its examples in {saved}."
            )
        optimizer.step()
        step += 1
        log.add(loss, supervised, loader.lengths_of(batch))
        if step in evaluated:
            log.held_out(held_out_loss(student, loader, held_out))
        log.maybe(step, norm=norm, learning_rate=learning_rate)
        tokens_seen += loader.tokens(batch)
        say("progress", step, steps, tokens_seen)
        due = step < steps and time.monotonic() - saved_at >= training.save_seconds
        if world.agree(float(due)):
            say("save", resuming.save(kept, step, log.state()))
            saved_at = time.monotonic()

    note = {"training": training.model_dump(mode="json"), "corpus": manifest, "base": base_hash}
    students.export(student, job.base_model, training, job.out, world=world, note=note)
    world.barrier()
    if world.first:
        shutil.rmtree(job.resume, ignore_errors=True)
    return Trained(job.out, checkpoints.inspect(job.out).content_hash, steps, log.last_loss)


def _accumulate(student: Student, loader: Loader, batch: Sequence[int], supervised: int) -> float:
    """Make the gradients of the mean loss over a step's supervised tokens; returns that loss.

    Every process plans the whole step, so all of them know how many tokens carry loss.
    """
    if not supervised:
        raise CorpusError("corpus: the examples of a step carry no loss; build it again.")
    world = loader.world
    total = torch.zeros((), device=world.device)
    for packed in loader.micro_batches(batch):
        loss_sum = student(packed)
        # Sharded gradients are averaged over processes, not summed.
        (loss_sum * (world.size / supervised)).backward()
        total += loss_sum.detach()
    return world.sum(total) / supervised


def held_out_loss(student: Student, loader: Loader, held_out: Sequence[int]) -> float:
    """Mean loss in nats over the supervised tokens of the held-out examples."""
    total = torch.zeros((), device=loader.world.device)
    student.eval()
    with torch.no_grad():
        for packed in loader.micro_batches(held_out):
            total += student(packed)
    student.train()
    parallel.reshard(student)
    return loader.world.sum(total) / loader.supervised(held_out)


@dataclass(frozen=True, slots=True)
class Loader:
    """Hands the corpus' examples to this process, packed."""

    corpus: Corpus
    training: Training
    world: World

    def lengths_of(self, batch: Sequence[int]) -> list[int]:
        """Tokens of each example."""
        return [int(self.corpus.rows["tokens"][index]) for index in batch]

    def tokens(self, batch: Sequence[int]) -> int:
        """Tokens of all examples together."""
        return sum(self.lengths_of(batch))

    def supervised(self, batch: Sequence[int]) -> int:
        """Tokens that carry loss; the first of a sequence is never predicted."""
        rows = self.corpus.rows[list(batch)]
        return int((rows["tokens"] - rows["prompt_tokens"].clip(min=1)).sum())

    def micro_batches(self, batch: Sequence[int]) -> Iterator[packing.Packed]:
        """The micro-batches of this process; all processes have equally many.

        The bins are the same however many processes there are, and dealt out from the fullest to
        the emptiest, there and back. Where they do not come out even, one without loss makes up for
        it: sharded parameters are gathered by all processes or none.
        """
        lengths, size, rank = self.lengths_of(batch), self.world.size, self.world.rank
        capacity = self.training.micro_batch_tokens if self.training.packing else 0
        bins = packing.bins(lengths, capacity)
        bins.sort(key=lambda chosen: -sum(lengths[at] for at in chosen))
        for number, start in enumerate(range(0, len(bins), size)):
            dealt = bins[start : start + size]
            turn = rank if number % 2 == 0 else size - 1 - rank
            if turn < len(dealt):
                yield self._pack([batch[at] for at in dealt[turn]])
            else:
                yield self._pack([batch[dealt[0][-1]]]).silenced()

    def _pack(self, chosen: Sequence[int]) -> packing.Packed:
        prompts = self.corpus.rows["prompt_tokens"]
        return packing.pack(
            [(self.corpus.tokens(index).tolist(), int(prompts[index])) for index in chosen],
            self.world.device,
        )


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


def split(examples: Sequence[Example], training: Training) -> tuple[list[int], list[int]]:
    """(taught, held out) indices; all examples of a problem are on one side."""
    if not training.held_out_share:
        return list(range(len(examples))), []
    ids = [example.problem_id for example in examples]
    problems = sorted(set(ids))
    count = round(training.held_out_share * len(problems))
    if not 0 < count < len(problems):
        raise CorpusError(
            f"training.held_out_share: {training.held_out_share} of {len(problems)} problems "
            "leaves nothing to measure or to learn; raise it, or set it to 0."
        )
    generator = torch.Generator().manual_seed(training.seed)
    drawn = torch.randperm(len(problems), generator=generator)[:count].tolist()
    hidden = {problems[at] for at in drawn}
    taught = [index for index, name in enumerate(ids) if name not in hidden]
    return taught, [index for index, name in enumerate(ids) if name in hidden]


def evaluation_steps(steps: int, training: Training) -> set[int]:
    """The steps, counted from 1, after which the held-out loss is measured; the last is one."""
    count = min(training.evaluations, steps)
    return {round(steps * (number + 1) / count) for number in range(count)}


def _choose_threads(student: Student, world: World) -> None:
    size = sum(parameter.numel() for parameter in student.parameters())
    if world.device.type == "cpu" and size < SINGLE_THREAD_PARAMETERS:
        torch.set_num_threads(1)


def _identity(training: Training, manifest: dict[str, Any], base_hash: str, world: World) -> str:
    """What a resume state must agree in."""
    settings = training.model_dump(mode="json")
    where = [world.device.type, world.size]
    return content_hash([corpus.manifest_hash(manifest), base_hash, settings, where])


def _resumed(kept: resuming.Resumable, log: _Log) -> int:
    """Steps that an earlier training has done; its state is taken up."""
    found = resuming.load(kept)
    if found is None:
        return 0
    step, logged = found
    log.restore(logged)
    return step


def _save_batch(job: Job, step: int, batch: Sequence[Example], world: World) -> Path:
    """Keep the examples of a step that went wrong, beside the resume state."""
    path = job.resume.with_name(f"{job.resume.name}.not_finite.jsonl")
    if world.first:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for example in batch:
                file.write(json.dumps({"step": step, **asdict(example)}) + "\n")
    return path


class _Log:
    """Collects what happened since the last logged step."""

    def __init__(
        self,
        on_step: OnStep,
        student: Student,
        training: Training,
        world: World,
        steps: int,
    ) -> None:
        self._on_step, self._steps = on_step, steps
        self._every = max(1, steps // LOGGED_STEPS)
        self._config, self._frozen = student.model.config, training.lora is not None
        self._parameters = student.multiplied_parameters()
        peak = optim.peak_flops(world.device)
        self._peak = None if peak is None else peak * world.size
        self._loss_sum, self._supervised = 0.0, 0
        self._tokens, self._flops = 0, 0.0
        self._extra: dict[str, float] = {}
        self._since = time.monotonic()
        self.last_loss = math.nan

    def add(self, loss: float, supervised: int, lengths: Sequence[int]) -> None:
        """Count a step: its mean loss, its tokens that carry loss, its examples' tokens."""
        self._loss_sum += loss * supervised
        self._supervised += supervised
        self._tokens += sum(lengths)
        self._flops += optim.step_flops(
            self._config, self._parameters, lengths, frozen=self._frozen
        )

    def held_out(self, loss: float) -> None:
        """Have the held-out loss reported with the step just counted."""
        self._extra["held_out_loss"] = loss

    def maybe(self, step: int, *, norm: float, learning_rate: float) -> None:
        """Report the first, every n-th and the last step, and one with a held-out loss."""
        if not (self._extra or step in (1, self._steps) or step % self._every == 0):
            return
        self.last_loss = self._loss_sum / self._supervised
        seconds = max(time.monotonic() - self._since, 1e-9)
        values = {
            "loss": self.last_loss,
            "learning_rate": learning_rate,
            "grad_norm": norm,
            "tokens_per_second": self._tokens / seconds,
            **self._extra,
        }
        if self._peak is not None:
            values["mfu"] = self._flops / seconds / self._peak
        self._on_step(step, values)
        self._loss_sum, self._supervised, self._tokens, self._flops = 0.0, 0, 0, 0.0
        self._extra = {}
        self._since = time.monotonic()

    def state(self) -> dict[str, float]:
        """What a resumed training needs to report the same losses."""
        return {"loss_sum": self._loss_sum, "supervised": self._supervised, "last": self.last_loss}

    def restore(self, state: Mapping[str, float]) -> None:
        """Take up :meth:`state`; tokens per second count from now."""
        self._loss_sum, self._supervised = state["loss_sum"], int(state["supervised"])
        self.last_loss = state["last"]
