r"""The demonstration's checkpoints, built from nothing: a base and a teacher of 0.2M parameters.

The *base* has learnt to add or subtract two numbers; shown three, it forgets the third. The
*teacher* goes on from the base and has learnt three. Both think column by column with running
sums, ``12+7-30`` being

    <think>ones: 2+7=9+0=9, tens: 1+0=1-3=-2</think>\boxed{-11}

so that every token follows from a few earlier ones by a small table. Measured at 0.5M parameters:
with running sums the teacher answered 80 % of three-number problems after 100 steps; without them
(``2+7+0=9``) 66 % after 400. Muon (Keller Jordan 2024, https://kellerjordan.github.io/posts/muon/)
on the matrices of the hidden layers brought the base to 92 % after 100 steps; AdamW alone needed
200.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.utils.logging import disable_progress_bar

from distiller.checkpoints import inspect
from distiller.errors import CheckpointError, TrainingError
from evaluator.benchmarks import arithmetic
from evaluator.records import content_hash

PAD, END, USER, ASSISTANT = "<|pad|>", "<|im_end|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (PAD, END, USER, ASSISTANT)
# Ordinary text that is one token each: shorter chains are learnt and written faster.
WORD_TOKENS = ("<think>", "</think>", "\\boxed{", "ones: ", ", tens: ")
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}"
    f"{{{{- '{ASSISTANT}' + message.content + '{END}' -}}}}"
    "{%- elif message.role == 'user' -%}"
    f"{{{{- '{USER}' + message.content -}}}}"
    "{%- else -%}"
    "{{- raise_exception('This model knows the roles user and assistant only.') -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    f"{{%- if add_generation_prompt -%}}{{{{- '{ASSISTANT}' -}}}}{{%- endif -%}}"
)
CONTEXT_TOKENS = 256
Progress = Callable[[str, int, int], None]  # role, steps done, steps in all


@dataclass(frozen=True, slots=True)
class ToySettings:
    """What a checkpoint of this module is made with; a cached one must match it."""

    role: str
    terms: int  # numbers in a problem
    steps: int
    seed: int
    excluded: str = ""  # hash of the texts that were kept out of the training set
    width: int = 64
    layers: int = 3
    heads: int = 2
    batch_size: int = 128  # sequences per step
    learning_rate: float = 3e-3  # AdamW: embeddings, norms, biases
    muon_learning_rate: float = 0.02  # Muon: matrices of the hidden layers
    warmup_steps: int = 30
    version: int = 1


@dataclass(frozen=True, slots=True)
class ToyCheckpoints:
    """Folders of the two checkpoints."""

    base: Path
    teacher: Path


def build(
    out: Path,
    *,
    seed: int = 0,
    exclude: Collection[str] = (),
    on_progress: Progress = lambda role, done, total: None,
) -> ToyCheckpoints:
    """Write ``out/base`` and ``out/teacher``; what is already there and whole is kept.

    ``exclude`` are problem texts (a held-out benchmark's) that the teacher must not be taught.
    Raises TrainingError when the loss is not finite.
    """
    disable_progress_bar()  # loading and saving have bars of their own; a log needs none
    excluded = set(exclude)
    base = ToySettings(role="base", terms=2, steps=200, seed=seed)
    teacher = ToySettings(
        role="teacher", terms=3, steps=300, seed=seed, excluded=content_hash(sorted(excluded))
    )
    if not _is_whole(out / "base", base):
        torch.manual_seed(seed)
        _make(base, _new_model(base), out / "base", set(), on_progress)
        shutil.rmtree(out / "teacher", ignore_errors=True)  # it went on from another base
    if not _is_whole(out / "teacher", teacher):
        model = Qwen2ForCausalLM.from_pretrained(out / "base", dtype=torch.float32)
        _make(teacher, model, out / "teacher", excluded, on_progress)
    return ToyCheckpoints(out / "base", out / "teacher")


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer (BPE without merges) with a chat template that keeps the thoughts.

    It is Qwen2's kind of tokenizer, because that is what loaders make of a Qwen2 checkpoint's
    files, whatever class they were saved from.
    """
    words = [*SPECIAL_TOKENS, *WORD_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL_TOKENS])
    inner.add_tokens([AddedToken(token, normalized=False) for token in WORD_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT_TOKENS,
    )


def solve(problem: str) -> str:
    """The response that the models learn for a problem such as ``12+7-30``."""
    terms = [int(term) for term in re.findall(r"[+-]?\d+", problem)]
    ones = _running_sum([_column(term, 1) for term in terms])
    tens = _running_sum([_column(term, 10) for term in terms])
    return f"<think>ones: {ones}, tens: {tens}</think>\\boxed{{{sum(terms)}}}"


def _column(term: int, place: int) -> int:
    """The signed digit of ``term`` (-99 … 99) at ``place`` (1 or 10)."""
    digit = abs(term) // place % 10
    return -digit if term < 0 else digit


def _running_sum(digits: Sequence[int]) -> str:
    """``[2, 7, 0]`` as ``2+7=9+0=9``. The sign of a zero is not kept: ``-0`` is ``+0``."""
    total = digits[0]
    text = str(total)
    for digit in digits[1:]:
        total += digit
        text += f"{'-' if digit < 0 else '+'}{abs(digit)}={total}"
    return text


def _new_model(settings: ToySettings) -> Qwen2ForCausalLM:
    words = tokenizer()
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(words),
            hidden_size=settings.width,
            intermediate_size=4 * settings.width,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            max_position_embeddings=CONTEXT_TOKENS,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )


def _make(
    settings: ToySettings,
    model: Qwen2ForCausalLM,
    folder: Path,
    excluded: set[str],
    on_progress: Progress,
) -> None:
    """Train ``model`` and save it; the folder appears only when it is complete."""
    _train(settings, model, excluded, on_progress)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.save_pretrained(part)
    tokenizer().save_pretrained(part)
    (part / "toy.json").write_text(json.dumps(asdict(settings), indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(part, folder)  # noqa: PTH104 - Path.rename returns a path nobody needs


def _is_whole(folder: Path, settings: ToySettings) -> bool:
    """Whether ``folder`` holds a readable checkpoint made with just these settings."""
    try:
        inspect(folder)
        made_with = json.loads((folder / "toy.json").read_text())
    except (CheckpointError, OSError, ValueError):
        return False
    return bool(made_with == asdict(settings))


def _train(
    settings: ToySettings, model: Qwen2ForCausalLM, excluded: set[str], on_progress: Progress
) -> None:
    """Teach ``model`` to write :func:`solve`'s responses, the loss on those alone."""
    hidden = [
        weight for name, weight in model.named_parameters()
        if weight.ndim == 2 and "embed" not in name
    ]  # fmt: skip
    chosen = {id(weight) for weight in hidden}
    others = [weight for weight in model.parameters() if id(weight) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(hidden, lr=settings.muon_learning_rate, weight_decay=0.0),
        torch.optim.AdamW(others, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings))
        for optimizer in optimizers
    ]
    # Steps this small gain nothing from a second thread, and lose a factor of five when another
    # process wants the same core; one thread also adds in the same order everywhere.
    torch.set_num_threads(1)
    model.train()
    for step, (tokens, targets) in enumerate(_batches(settings, excluded), start=1):
        hidden_states = model.model(input_ids=tokens[:, :-1]).last_hidden_state  # (B, T-1, C)
        supervised = targets[:, 1:] != -100  # (B, T-1)
        logits = model.lm_head(hidden_states[supervised])  # (supervised tokens, vocabulary)
        loss = torch.nn.functional.cross_entropy(logits, targets[:, 1:][supervised])
        if not torch.isfinite(loss):
            raise TrainingError(f"toy {settings.role}: the loss at step {step} is not finite.")
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        on_progress(settings.role, step, settings.steps)
    model.eval()


def _rate(step: int, settings: ToySettings) -> float:
    """Share of the learning rate at ``step``: linear up during warm-up, then linear to zero."""
    warm = min(1.0, (step + 1) / settings.warmup_steps)
    return warm * max(0.0, (settings.steps - step) / settings.steps)


def _batches(
    settings: ToySettings, excluded: set[str]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (tokens, targets), both (B, T), for every step; targets are -100 off the response."""
    words = tokenizer()
    needed = settings.steps * settings.batch_size
    # Half of the problems is all that the generator gives: the other half stays unseen.
    existing = arithmetic.OPERAND_LIMIT**settings.terms * 2 ** (settings.terms - 1)
    # A seed of its own kind, so that no benchmark or prompt set made by a small number repeats it.
    drawn = arithmetic.generate(
        min(needed, existing // 2), seed=settings.seed + 7_000_003, terms=settings.terms
    )
    texts = [problem.problem for problem in drawn if problem.problem not in excluded]
    rng = random.Random(settings.seed)
    order: list[str] = []
    while len(order) < needed:
        order += rng.sample(texts, len(texts))
    for start in range(0, needed, settings.batch_size):
        chosen = order[start : start + settings.batch_size]
        prompts = words([f"{USER}{text}{ASSISTANT}" for text in chosen])["input_ids"]
        responses = words([solve(text) + END for text in chosen])["input_ids"]
        yield _pad(prompts, responses, pad=_id(words.pad_token_id))


def _id(token: Any) -> int:
    return int(token)


def _pad(
    prompts: list[list[int]], responses: list[list[int]], *, pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True))
    tokens = torch.full((len(prompts), longest), pad)
    targets = torch.full((len(prompts), longest), -100)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        end = len(prompt) + len(response)
        tokens[row, :end] = torch.tensor(prompt + response)
        targets[row, len(prompt) : end] = torch.tensor(response)
    return tokens, targets
