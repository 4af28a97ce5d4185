"""The model that is trained: loaded from the base, and exported as a checkpoint."""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from distiller import checkpoints, parallel, templates
from distiller.errors import InputError, TrainingError
from distiller.modelling import Student
from distiller.packing import ATTENTION
from distiller.parallel import World
from distiller.recipe import Training
from evaluator.engines.prompting import Prompter

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# What a config may say that distiller.modelling.Student does not do between hidden states and loss.
_UNKNOWN_TO_THE_LOSS = ("final_logit_softcapping", "logits_scaling", "logit_scale")


def trainable(student: Student) -> list[tuple[str, Any]]:
    """(name, parameter) of what is trained, in the model's order."""
    return [pair for pair in student.model.named_parameters() if pair[1].requires_grad]


def load(base_model: Path, training: Training, world: World) -> Student:
    """The student before its first step, on its device, spread over the processes.

    What is trained is float32; under adapters the frozen weights have the training's dtype. The
    processes load one after another, so that the host holds one whole copy at a time.
    """
    for turn in range(world.size):
        if turn == world.rank:
            torch.manual_seed(training.seed)  # adapters begin the same everywhere
            model = _with_adapters(_read(base_model, training), training)
            if getattr(model.get_output_embeddings(), "bias", None) is not None:
                raise InputError(
                    "base: its output layer has a bias, which the training loop does not apply; "
                    "use a base of the Qwen2, Qwen3 or Llama kind."
                )
            model.config.use_cache = False
            model.set_attn_implementation(ATTENTION)
            if training.gradient_checkpointing:
                model.gradient_checkpointing_enable({"use_reentrant": False})
            student = Student(model, bfloat16=training.dtype == "bfloat16")
        world.barrier()
    parallel.shard(student, student.layers, world, bfloat16=training.dtype == "bfloat16")
    student.to(world.device).train()
    torch.manual_seed(training.seed + world.rank)  # dropout differs from process to process
    return student


def require_trainable(config: Any, *, longest: int, largest_id: int) -> None:
    """Refuse what the loop would train wrongly, before any time is spent."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and longest > positions:
        raise InputError(
            f"training.max_length_tokens: the longest example has {longest} tokens, but the base "
            f"only {positions} positions; lower the limit, set training.rope, or use another base."
        )
    if largest_id >= config.vocab_size:
        raise InputError(
            f"base: the corpus holds token {largest_id}, but the model knows only "
            f"{config.vocab_size}; the tokenizer is another model's."
        )
    for key in _UNKNOWN_TO_THE_LOSS:
        if getattr(config, key, None) not in (None, 1, 1.0):
            raise InputError(
                f"base: its config sets {key}, which the training loop does not apply; use a base "
                "of the Qwen2, Qwen3 or Llama kind."
            )
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(
            "base: its weights are quantised, which the training loop does not know; use the "
            "checkpoint that it was made from."
        )
    window = getattr(config, "sliding_window", None)
    if window is not None and window < longest and not getattr(config, "layer_types", None):
        raise InputError(
            f"base: its attention has a window of {window} tokens, which the training loop does "
            f"not know; lower training.max_length_tokens to {window}, or use a base with full "
            "attention."
        )
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    if layers != {"full_attention"}:
        raise InputError(
            f"base: its config has layers of {', '.join(sorted(layers - {'full_attention'}))}, "
            "which packed training does not know; use a base with full attention."
        )


def config_of(base_model: Path, training: Training) -> Any:
    """The config of the base, its positions stretched where the recipe says so."""
    rope = None if training.rope is None else training.rope.model_dump()
    return Prompter(base_model, rope).config


def export(
    student: Student,
    base_model: Path,
    training: Training,
    out: Path,
    *,
    world: World,
    note: Mapping[str, Any],
) -> None:
    """Write weights, config, tokenizer and ``note``; ``out`` appears when it is complete.

    Adapters are merged, in float32. ``note`` holds the corpus' manifest: the student is asked, and
    stops, as it was taught. Every process has to call this; the first one writes.
    """
    learnt = {}
    for name, parameter in trainable(student):
        full = parallel.whole(parameter.detach())
        if world.first:
            learnt[name] = full.cpu()
    if not world.first:
        return
    student.to("cpu")
    gc.collect()
    model = _with_adapters(_read(base_model, training, whole=True), training)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in learnt.items():
            own[name].copy_(tensor)
        if training.lora:
            _merge(model)
            model = _without_adapters(model)
    templates.set_endings(model, note["corpus"])
    _write(model.to(_DTYPES[training.dtype]), base_model, out, note)


def _read(base_model: Path, training: Training, *, whole: bool = False) -> Any:
    frozen = training.lora is not None and not whole
    return AutoModelForCausalLM.from_pretrained(
        base_model,
        config=config_of(base_model, training),
        dtype=_DTYPES[training.dtype] if frozen else torch.float32,
        local_files_only=True,
    )


def _with_adapters(model: Any, training: Training) -> Any:
    """The model, adapters built into its linear layers where the recipe says so."""
    if training.lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(
        r=training.lora.rank,
        lora_alpha=training.lora.alpha,
        lora_dropout=training.lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, adapters).get_base_model()


def _merge(model: Any) -> None:
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.merge()


def _without_adapters(model: Any) -> Any:
    """The plain model in place of one whose adapters were merged."""
    from peft.tuners.lora import LoraLayer

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoraLayer):
                setattr(module, name, child.get_base_layer())
    model._hf_peft_config_loaded = False
    return model


def _write(model: Any, base_model: Path, out: Path, note: Mapping[str, Any]) -> None:
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        model.config.use_cache = True
        model.save_pretrained(part)
        templates.save_student_tokenizer(base_model, part, note["corpus"])
        text = json.dumps(note, indent=1, sort_keys=True) + "\n"
        (part / "training.json").write_text(text, encoding="utf-8")
        checkpoints.inspect(part)
        shutil.rmtree(out, ignore_errors=True)
        os.rename(part, out)  # noqa: PTH104
    except (OSError, SafetensorError) as error:  # safetensors says in its own kind that it is full
        raise TrainingError(
            f"out: the student cannot be written to {out} ({error}); free some space and start "
            "again: the training goes on from its last saved state."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
