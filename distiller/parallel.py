"""Several processes, a device each, that train one model: FSDP2, on GPUs or (over gloo) on CPUs.

Bare torch.distributed and not accelerate's wrapper: all that the loop needs is a rank, one sum over
ranks and sharded parameters, and with ``fully_shard`` model, optimizer and loop stay what they are
in one process. Processes come from :func:`spawn`, or from a launcher such as ``torchrun``, which
tells each of them its place in the environment: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
MASTER_PORT.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from distiller.errors import DistillerError, InputError, TrainingError


@dataclass(frozen=True, slots=True)
class World:
    """One process among those that train: its number, how many there are, its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def sum(self, value: torch.Tensor) -> float:
        """The sum over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return float(value)

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            dist.barrier()

    def agree(self, value: float) -> float:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return float(shared)


def join(device: str, *, rank: int | None = None, size: int = 1, store: str = "env://") -> World:
    """Become one of ``size`` processes; without ``rank`` a launcher's environment says which.

    Alone, no process group is made. Raises InputError for an environment that no launcher made.
    """
    if rank is None and launched():
        rank, size = _place()
    kind = torch.device(device).type
    if rank is None or size == 1:
        return World(0, 1, torch.device(device))
    local = int(os.environ.get("LOCAL_RANK", rank))
    own = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(own)
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // size))
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo", init_method=store, rank=rank, world_size=size
    )
    return World(rank, size, own)


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def _place() -> tuple[int, int]:
    """(rank, size) as the launcher said; raises InputError."""
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise InputError(
            f"RANK, WORLD_SIZE: {rank!r} of {size!r} is no place among processes; start with "
            "torchrun, or unset both."
        )
    if int(size) > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise InputError(
            "MASTER_ADDR, MASTER_PORT: not set, though RANK and WORLD_SIZE are; start with "
            "torchrun, which sets them all."
        )
    return int(rank), int(size)


def leave(world: World) -> None:
    """Undo :func:`join`."""
    if world.size > 1:
        dist.destroy_process_group()


def default_processes(device: str) -> int:
    """How many a training has to start itself.

    One per visible GPU for ``cuda``; one for anything else (``cuda:1``, ``cpu``), and for each
    process that a launcher has started.
    """
    if device == "cuda" and not launched():
        return max(1, torch.cuda.device_count())
    return 1


def shard(student: Any, layers: Any, world: World, *, bfloat16: bool) -> None:
    """Spread the parameters of every layer, and of what is around them, over the processes."""
    if world.size == 1:
        return
    mesh = init_device_mesh(world.device.type, (world.size,))
    # Weights travel in the precision they are used in; gradients are summed in float32.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bfloat16 else None, reduce_dtype=torch.float32
    )
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(student, mesh=mesh, mp_policy=policy)


def reshard(student: torch.nn.Module) -> None:
    """Give back what a forward pass without a backward one has left gathered."""
    for module in student.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def local(tensor: Any) -> torch.Tensor:
    """What this process has of a parameter, or of its optimizer state."""
    part: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def whole(tensor: Any) -> torch.Tensor:
    """All of a parameter; every process has to ask at the same time."""
    full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    # A gathered tensor may still be on its way, and must not outlive the process group so.
    arrived: torch.Tensor = full.wait() if hasattr(full, "wait") else full
    return arrived


def spawn(
    size: int,
    device: str,
    work: Callable[[World, Callable[..., None], Any], Any],
    argument: Any,
    on_message: Callable[..., None],
) -> Any:
    """Run ``work(world, say, argument)`` in ``size`` processes; the result is the first one's.

    What a process says is handed to ``on_message`` here. An error in one ends all of them and is
    raised here; a process that dies without a word raises TrainingError.
    """
    context = multiprocessing.get_context("spawn")
    messages = context.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="retort-") as folder:
        store = (Path(folder) / "store").as_uri()
        processes = []
        for rank in range(size):
            joining = partial(join, device, rank=rank, size=size, store=store)
            arguments = (joining, work, argument, messages)
            processes.append(context.Process(target=_child, args=arguments))
        for process in processes:
            process.start()
        try:
            return _listen(processes, messages, on_message)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _listen(processes: Any, messages: Any, on_message: Callable[..., None]) -> Any:
    """Hand on messages until all processes have ended, or one has failed."""
    result: Any = None
    living = {process.sentinel: process for process in processes}
    reader = messages._reader
    while living or reader.poll():
        if not reader.poll():
            for sentinel in set(wait([*living, reader])) & set(living):
                process = living.pop(sentinel)
                process.join()
                if process.exitcode and not reader.poll():
                    raise TrainingError(
                        f"training: a process ended with exit code {process.exitcode} (killed, or "
                        "out of memory); start it again to go on, or lower "
                        "training.micro_batch_tokens."
                    )
            continue
        kind, content = messages.get()
        if kind == "failed":
            raise content
        if kind == "result":
            result = content
        else:
            on_message(*content)
    return result


def _child(
    joining: Callable[[], World],
    work: Callable[[World, Callable[..., None], Any], Any],
    argument: Any,
    messages: Any,
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        world = joining()
        result = work(world, partial(_say, messages) if world.first else _keep_quiet, argument)
        if world.first:
            messages.put(("result", result))
        leave(world)
    except DistillerError as error:
        messages.put(("failed", error))
        os._exit(1)  # others may wait for this process in a collective


def _say(messages: Any, *content: Any) -> None:
    messages.put(("message", content))


def _keep_quiet(*content: Any) -> None:
    """What the other processes would say, the first one says."""


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
