"""The resume state of a training: everything that changes, written so that a kill costs little.

A state is a folder ``step-N`` with a file per process. It is written under another name, forced to
the disk, and renamed when all processes are done; the older one goes only after that. So there is
always one whole state, and a training that goes on from it ends in the same weights, bit for bit
on the same CPU.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distiller import parallel
from distiller.errors import TrainingError
from distiller.parallel import World

_PREFIX, _PART = "step-", ".part"


@dataclass(frozen=True, slots=True)
class Resumable:
    """What a state is of: ``identity`` says of which training, the rest is what changes in it."""

    folder: Path
    identity: str
    parameters: list[tuple[str, Any]]
    optimizer: torch.optim.Optimizer
    world: World


def save(kept: Resumable, step: int, extra: Mapping[str, float]) -> Path:
    """Write the state after ``step``, and return its folder; every process has to call this.

    The state before goes in one step, so that whoever links its files has all or none of them.
    """
    folder, world = kept.folder, kept.world
    part, final = folder / f"{_PREFIX}{step}{_PART}", folder / f"{_PREFIX}{step}"
    try:
        part.mkdir(parents=True, exist_ok=True)
        state = {
            "identity": kept.identity,
            "step": step,
            "parameters": {name: parallel.local(each.detach()) for name, each in kept.parameters},
            "optimizer": _moments(kept),
            "rng": torch.get_rng_state(),
            "device_rng": _device_rng(world),
            "extra": dict(extra),
        }
        with (part / f"{world.rank}.pt").open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        shutil.rmtree(part, ignore_errors=True)
        raise TrainingError(
            f"resume: the state cannot be written to {folder} ({error}); free some space and "
            "start again."
        ) from error
    world.barrier()
    if world.first:
        shutil.rmtree(final, ignore_errors=True)
        os.rename(part, final)  # noqa: PTH104
        _sync(folder)
        for path in folder.iterdir():
            if path.name.startswith(_PREFIX) and path != final:
                gone = path.with_name(path.name.removesuffix(_PART) + _PART)
                path.rename(gone)
                shutil.rmtree(gone)
    world.barrier()
    return final


def load(kept: Resumable) -> tuple[int, dict[str, float]] | None:
    """Put the newest state into parameters and optimizer: (steps done, what ``extra`` was).

    None where there is no state. Raises TrainingError where it is another training's.
    """
    folder, world = kept.folder, kept.world
    steps = [
        int(path.name.removeprefix(_PREFIX))
        for path in folder.glob(f"{_PREFIX}*")
        if not path.name.endswith(_PART)
    ]
    if not steps:
        return None
    path = folder / f"{_PREFIX}{max(steps)}" / f"{world.rank}.pt"
    if not path.exists():
        raise _foreign(folder)
    # Left on the CPU: a random generator's state must be there, and the rest is copied.
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state["identity"] != kept.identity:
        raise _foreign(folder)
    with torch.no_grad():
        for name, parameter in kept.parameters:
            parallel.local(parameter).copy_(state["parameters"][name])
            _restore_moments(kept.optimizer, parameter, state["optimizer"].get(name))
    torch.set_rng_state(state["rng"])
    if state["device_rng"] is not None:
        torch.cuda.set_rng_state(state["device_rng"], world.device)
    return int(state["step"]), state["extra"]


def _moments(kept: Resumable) -> dict[str, dict[str, torch.Tensor]]:
    moments = kept.optimizer.state
    return {
        name: {key: parallel.local(value) for key, value in moments[parameter].items()}
        for name, parameter in kept.parameters
        if parameter in moments
    }


def _restore_moments(
    optimizer: torch.optim.Optimizer, parameter: Any, moments: Mapping[str, Any] | None
) -> None:
    """Moments are spread as their parameter is; the step counter is not."""
    if moments is None:
        return
    restored = {}
    for key, value in moments.items():
        if key == "step":
            restored[key] = value.to(parallel.local(parameter).device)
        else:
            restored[key] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            parallel.local(restored[key]).copy_(value)
    optimizer.state[parameter] = restored


def _device_rng(world: World) -> torch.Tensor | None:
    return torch.cuda.get_rng_state(world.device) if world.device.type == "cuda" else None


def _foreign(folder: Path) -> TrainingError:
    return TrainingError(
        f"resume: {folder} belongs to another training (corpus, base, settings, device or number "
        "of processes differ); remove it or use another folder."
    )


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
