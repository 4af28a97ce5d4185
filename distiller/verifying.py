"""Whether a checkpoint's weights are those of its config: loaded on the meta device, without data.

Torch is imported here, and transformers reads files that somebody else wrote: a server runs
:func:`verify_in_child`.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from distiller import checkpoints, headers
from distiller.checkpoints import CheckpointInfo
from distiller.errors import CheckpointError

TIMEOUT_SECONDS = 300.0
_FLOATS = {"F64", "F32", "F16", "BF16"}


def verify(folder: Path) -> CheckpointInfo:
    """Inspect the folder, then hold every tensor against the architecture that its config names.

    The model class follows from ``model_type``; its names, shapes and ties are transformers' own,
    and no code of the checkpoint runs. Raises CheckpointError with one sentence: an architecture
    that is not known, a tensor that is missing, too many, of another shape, or no floating-point
    number. Of a quantised checkpoint's tensors nothing is checked but that the files hold what they
    promise (:func:`unchecked` says so): their names and shapes are the method's, and loading them
    takes its library and often a GPU.
    """
    info = checkpoints.inspect(folder)
    _require_loadable(folder)
    if unchecked(folder):
        return info
    _require_floats(folder)
    report = _load_on_meta(folder)
    if report["mismatched_keys"]:
        name, stored, wanted = sorted(report["mismatched_keys"], key=str)[0]
        raise CheckpointError(
            f"{folder.name}: {name} has the shape {tuple(stored)}, but config.json asks for "
            f"{tuple(wanted)}; use the config the model was saved with."
        )
    for key, what in (("missing_keys", "lacks"), ("unexpected_keys", "holds")):
        if names := sorted(report[key]):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            which = "the architecture needs" if key == "missing_keys" else "it does not know"
            raise CheckpointError(
                f"{folder.name}: {what} {names[0][:99]!r}{more}, which {which} "
                f"({info.architecture}); save the whole model again."
            )
    return info


def unchecked(folder: Path) -> str | None:
    """What :func:`verify` cannot say of this checkpoint, as a sentence; None where it says all."""
    plan = checkpoints.config(folder).get("quantization_config")
    if plan is None:
        return None
    method = plan.get("quant_method") if isinstance(plan, dict) else None
    return (
        f"the weights are quantised ({method or 'by no named method'}), so tensors were not held "
        "against the config; load it in its engine to know."
    )


def verify_in_child(folder: Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """:func:`verify` in a process of its own; raises CheckpointError with its sentence.

    What the child was told by its parent's environment is no secret: it gets the path of programs
    and no more.
    """
    root = str(Path(__file__).resolve().parents[1])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "distiller", "verify", str(folder)],
            capture_output=True, text=True, check=False, timeout=timeout_seconds, cwd="/",
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": root, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(
            f"{folder.name}: not verified within {timeout_seconds:.0f} s; try a smaller one."
        ) from error
    if done.returncode == 2:
        raise CheckpointError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise CheckpointError(f"{folder.name}: could not be verified ({last[:300]}).")


def _require_floats(folder: Path) -> None:
    for name, tensor in checkpoints.weights(folder).items():
        if tensor.dtype not in _FLOATS:
            kind = headers.DTYPES[tensor.dtype][0]
            raise CheckpointError(
                f"{folder.name}: {name[:99]!r} is of {kind} numbers, and config.json names no "
                "quantization_config; save the model in float32, bfloat16 or float16."
            )


def _require_loadable(folder: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    what = "the config"
    try:
        AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        what = "the tokenizer"
        AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(_sentence(folder, what, error)) from error


def _load_on_meta(folder: Path) -> dict[str, Any]:
    """What loading says of missing, unexpected and mismatched tensors."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)  # its report is our sentence
    try:
        _, report = AutoModelForCausalLM.from_pretrained(
            folder,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except Exception as error:
        raise CheckpointError(_sentence(folder, "the model", error)) from error
    found: dict[str, Any] = report
    return found


def _sentence(folder: Path, what: str, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{folder.name}: {what} cannot be loaded ({text[:300].rstrip('.')}); save it again."
