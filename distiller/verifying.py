"""Whether a checkpoint's weights are those of its config: loaded on the meta device, without data.

Torch is imported here, and transformers reads files that somebody else wrote: a server runs
:func:`verify_in_child`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from distiller import checkpoints, confining, headers
from distiller.checkpoints import CheckpointInfo
from distiller.errors import CheckpointError, DistillerError

TIMEOUT_SECONDS = 300.0  # and what hashing takes, at HASH_BYTES_PER_SECOND
HASH_BYTES_PER_SECOND = 20_000_000  # a slow disk's
MEMORY_BYTES = 6_000_000_000  # torch and transformers alone take a tenth of it
TEMPLATE_SECONDS = 5.0  # of CPU time, for a template that renders one short question
_ANSWER_BYTES = 20_000  # of what the child may say
_POLL_SECONDS = 0.1
_BY_SIGNAL = 128
_ENDLESS = (
    f"chat template: does not end within {TEMPLATE_SECONDS:g} s for one short question; use the "
    "template the model was published with."
)
_SAID = TypeAdapter(CheckpointInfo)
_FLOATS = {"F64", "F32", "F16", "BF16"}


class AbandonedError(DistillerError):
    """The verification was ended because nobody waits for it any more."""

    transient = True


def verify(folder: Path, *, hashed: bool = True) -> CheckpointInfo:
    """Inspect the folder, then hold every tensor against the architecture that its config names.

    The model class follows from ``model_type``; its names, shapes and ties are transformers' own,
    and no code of the checkpoint runs. Its chat template must render a question. Raises
    CheckpointError with one sentence: an architecture that is not known, a tensor that is missing,
    too many, of another shape, or no floating-point number. Of a quantised checkpoint's tensors
    nothing is checked but that the files hold what they promise (:func:`unchecked` says so): their
    names and shapes are the method's, and loading them takes its library and often a GPU.
    Without ``hashed`` the content hash is blank.
    """
    info = checkpoints.inspect(folder, hashed=hashed)
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


def verify_in_child(
    folder: Path,
    *,
    timeout_seconds: float | None = None,
    memory_bytes: int = MEMORY_BYTES,
    wanted: Callable[[], bool] = lambda: True,
) -> CheckpointInfo:
    """:func:`verify` in a process of its own, of limited time and memory, confined where it can be.

    What a hostile tokenizer or template can reach ends with that process, and is the folder itself
    where ``distiller/confining.py`` works. It was told no secret: its environment is the path of
    programs and no more. Nor is it believed in what would let one checkpoint pass for another: the
    content hash and the size are looked up here. Raises CheckpointError with its sentence;
    AbandonedError as soon as ``wanted`` says no.
    """
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    seconds = timeout_seconds or TIMEOUT_SECONDS + size / HASH_BYTES_PER_SECOND
    root = str(Path(__file__).resolve().parents[1])
    with tempfile.TemporaryFile() as said, tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "distiller", "verify", str(folder),
                   "--memory-bytes", str(memory_bytes), "--json", "--unhashed"]  # fmt: skip
        wall = not confining.why_not()
        child = subprocess.Popen(
            confining.confined(command, folder),
            stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, cwd=home,
            start_new_session=True,
            env={
                "PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": root,
                "HOME": "/tmp" if wall else home,  # noqa: S108 - behind the wall its own
                "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
            },
        )  # fmt: skip
        try:
            _await(child, folder, seconds, wanted)
        finally:
            # A session of its own: also what it may have started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            code = child.wait()
        if wall and code > _BY_SIGNAL:  # as bubblewrap tells of a signal
            code = _BY_SIGNAL - code
        size = said.seek(0, os.SEEK_END)
        said.seek(max(size - _ANSWER_BYTES, 0))
        lines = said.read().decode("utf-8", "replace").strip().splitlines() or [""]
    if code == 0:
        return _told(lines[-1], folder, wanted)
    if code == 2:
        raise CheckpointError(lines[-1])
    if code == -signal.SIGXCPU:
        raise CheckpointError(_ENDLESS)
    if code < 0 or any("MemoryError" in line or "memory allocation" in line for line in lines):
        raise CheckpointError(
            f"{folder.name}: takes more than {memory_bytes / 1e9:g} GB of memory to look at (or "
            f"crashes: {lines[-1][:200]}); a tokenizer or template of usual size is needed."
        )
    raise CheckpointError(
        f"{folder.name}: could not be verified ({lines[-1][:300] or f'exit code {code}'})."
    )


def _told(line: str, folder: Path, wanted: Callable[[], bool]) -> CheckpointInfo:
    """What the child says of the folder, as far as it may be anybody's word."""

    def go_on() -> None:
        if not wanted():
            raise AbandonedError(f"{folder.name}: the verification was given up.")

    try:
        said = _SAID.validate_json(line)
    except ValidationError:
        raise CheckpointError(
            f"{folder.name}: what looked at it said nothing of use; give another folder."
        ) from None
    return replace(
        said,
        size_bytes=checkpoints.size_bytes(folder),
        content_hash=checkpoints.content_hash(folder, go_on),
    )


def limit_memory(memory_bytes: int) -> None:
    """Let this process have so much memory of its own; what is only mapped from files is free."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _await(
    child: subprocess.Popen[bytes], folder: Path, seconds: float, wanted: Callable[[], bool]
) -> None:
    deadline = time.monotonic() + seconds
    while child.poll() is None:
        if time.monotonic() > deadline:
            raise CheckpointError(
                f"{folder.name}: not verified within {seconds:.0f} s; try a smaller one."
            )
        if not wanted():
            raise AbandonedError(f"{folder.name}: the verification was given up.")
        time.sleep(_POLL_SECONDS)


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
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except MemoryError:  # the parent says how much it may take
        raise
    except Exception as error:  # a boundary: these libraries raise anything of others' files
        raise CheckpointError(_sentence(folder, what, error)) from error
    if tokenizer.chat_template is not None:
        _require_renderable(tokenizer)


def _require_renderable(tokenizer: Any) -> None:
    """Render one question with the checkpoint's own template, for a few seconds at most."""
    turns = [{"role": "user", "content": "QUESTION"}]
    try:
        with _limited_seconds(TEMPLATE_SECONDS):
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except _TooSlowError:
        raise CheckpointError(_ENDLESS) from None
    except MemoryError:
        raise
    except Exception as error:  # a boundary: a template is somebody's program
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"chat template: cannot be rendered ({reason}); use the template the model was "
            "published with."
        ) from error
    if "QUESTION" not in text:
        raise CheckpointError(
            "chat template: leaves the question out; use the template the model was published with."
        )


class _TooSlowError(Exception):
    """The CPU time is used up."""


@contextlib.contextmanager
def _limited_seconds(seconds: float) -> Iterator[None]:
    """Raise _TooSlowError in the middle of what takes more CPU time; main thread only."""

    def end(number: int, frame: FrameType | None) -> None:
        raise _TooSlowError

    before = signal.signal(signal.SIGVTALRM, end)
    # What hangs inside one operation never comes to our handler: the kernel ends the process then.
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    last = int(time.process_time() + 2 * seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (last if soft < 0 else min(soft, last), hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
        signal.signal(signal.SIGVTALRM, before)


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
    except MemoryError:
        raise
    except Exception as error:  # a boundary, as for the tokenizer
        raise CheckpointError(_sentence(folder, "the model", error)) from error
    found: dict[str, Any] = report
    return found


def _sentence(folder: Path, what: str, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{folder.name}: {what} cannot be loaded ({text[:300].rstrip('.')}); save it again."
