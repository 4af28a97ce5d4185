"""Chat templates for training: which token ends a turn, and what a student's tokenizer is given.

Torch-free. A checkpoint's EOS token and the token with which its template ends a turn are not
always the same (Qwen2.5's base models: ``<|endoftext|>`` and ``<|im_end|>``). The student is taught
the template's, and its tokenizer and configs name it, so that every engine stops there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distiller.errors import InputError
from evaluator.records import canonical_json

PLAIN = "none"  # evaluator.protocol.Protocol.chat_template's word for plain text
_ANSWER = "ANSWER"
_NO_EOS = "base: its tokenizer has no EOS token, so a student could not learn to end; set one."


@dataclass(frozen=True, slots=True)
class Ending:
    """The token that ends a response."""

    id: int
    token: str


def ending(tokenizer: Any, template: str | None) -> Ending:
    """The token with which ``template`` ends the assistant's turn; the tokenizer's EOS token where
    it ends a turn with no special token, or where there is no template.

    Raises InputError where there is neither.
    """
    special = _special_ids(tokenizer)
    if template is not None and template != PLAIN:
        tail = _after_answer(tokenizer, template)
        ids = tokenizer(tail, add_special_tokens=False)["input_ids"]
        if ids and ids[0] in special:
            return Ending(int(ids[0]), str(tokenizer.convert_ids_to_tokens(int(ids[0]))))
    if tokenizer.eos_token_id is None:
        raise InputError(_NO_EOS)
    return Ending(int(tokenizer.eos_token_id), str(tokenizer.eos_token))


def turn_ids(tokenizer: Any, template: str | None, tags: Sequence[str]) -> frozenset[int]:
    """The special tokens that begin or end a turn, or a text; ``tags`` of thoughts are none.

    In the middle of a response they would teach to speak for the user, or to go on after the end.
    """
    found = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    if tokenizer.pad_token_id != tokenizer.unk_token_id:
        found.add(tokenizer.pad_token_id)
    if template is not None and template != PLAIN:
        text = _render(tokenizer, template, _ANSWER)
        found |= set(tokenizer(text, add_special_tokens=False)["input_ids"])
    known = {tokenizer.convert_tokens_to_ids(tag) for tag in tags}
    return frozenset((found & _special_ids(tokenizer)) - known)


def drops_thoughts(tokenizer: Any, template: str, open_tag: str, close_tag: str) -> bool:
    """Whether ``template`` leaves the thoughts out of an assistant's turn, as DeepSeek's does."""
    text = _render(tokenizer, template, f"{open_tag}\nTHOUGHTS\n{close_tag}\n\n{_ANSWER}")
    return "THOUGHTS" not in text or close_tag not in text


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 of the vocabulary, merges, rules and added tokens; of the vocabulary alone where the
    tokenizer is not one of the tokenizers library.
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)
    text = canonical_json(tokenizer.get_vocab()) if inner is None else inner.to_str()
    return hashlib.sha256(text.encode()).hexdigest()


def save_student_tokenizer(base_model: Path, out: Path, manifest: Mapping[str, Any]) -> None:
    """Write the base's tokenizer into ``out`` with the corpus' template, ending and padding token.

    ``manifest`` is the corpus': what the student was taught is what it is asked with.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_model, local_files_only=True)
    tokenizer.chat_template = manifest["chat_template"]
    tokenizer.eos_token = manifest["end_token"]
    if manifest["pad_token"] is not None:
        tokenizer.pad_token = manifest["pad_token"]
    tokenizer.save_pretrained(out)
    # transformers may load another class than the file names and drop this setting; the evaluator
    # asks for it, and a student must be asked exactly as its base was.
    source = _settings(base_model)
    if "add_bos_token" in source:
        path = out / "tokenizer_config.json"
        settings = _settings(out) | {"add_bos_token": source["add_bos_token"]}
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def set_endings(model: Any, manifest: Mapping[str, Any]) -> None:
    """Make ``model``'s configs stop where the corpus' responses end, and where its base did."""
    end = int(manifest["end_token_id"])
    model.config.eos_token_id = end
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        before = generation.eos_token_id
        others = before if isinstance(before, list) else [] if before is None else [before]
        ends = [end, *(each for each in others if each != end)]
        generation.eos_token_id = ends if len(ends) > 1 else end
        model.generation_config = _for_long_answers(generation)


def _for_long_answers(generation: Any) -> Any:
    """The base's generation settings as a student may have them.

    A length that was meant for the base's answers goes: servers obey it, and would cut thoughts
    off. Settings that contradict each other, as some published ones do, could not be saved at the
    end of a training; then only the special tokens stay.
    """
    from transformers import GenerationConfig

    generation.max_length = generation.max_new_tokens = None
    try:
        generation.validate(strict=True)
    except ValueError:
        names = ("bos_token_id", "pad_token_id")
        kept = {name: getattr(generation, name) for name in names}
        kept = {name: number for name, number in kept.items() if number is not None and number >= 0}
        return GenerationConfig(eos_token_id=generation.eos_token_id, **kept)
    return generation


def _after_answer(tokenizer: Any, template: str) -> str:
    text = _render(tokenizer, template, _ANSWER)
    if _ANSWER not in text:
        raise InputError(
            "chat template: it leaves the assistant's answer out; give another template in "
            "corpus.chat_template."
        )
    return text.rpartition(_ANSWER)[2].lstrip()


def _render(tokenizer: Any, template: str, answer: str) -> str:
    import jinja2

    turns = [{"role": "user", "content": "QUESTION"}, {"role": "assistant", "content": answer}]
    try:
        return str(tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False))
    except jinja2.TemplateError as error:
        raise InputError(
            f"chat template: it does not render an assistant's turn ({error}); give another one in "
            "corpus.chat_template."
        ) from error


def _special_ids(tokenizer: Any) -> set[int]:
    added = tokenizer.added_tokens_decoder
    return {number for number, token in added.items() if token.special} | set(
        tokenizer.all_special_ids
    )


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
