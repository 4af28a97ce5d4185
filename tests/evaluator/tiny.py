"""A tokenizer of one token per character."""

from __future__ import annotations

import string
from pathlib import Path

ROLES = ("<user>", "<assistant>")
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_tokenizer(folder: Path, *, chat_template: str | None = TEMPLATE) -> int:
    """Write a character tokenizer and return the size of its vocabulary."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["<pad>", "<eos>", *ROLES, *string.digits, *"+-*/=() .\n\\{}<>", *string.ascii_letters]
    tokenizer = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<pad>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<eos>",
        pad_token="<pad>",
        additional_special_tokens=list(ROLES),
    )
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    return len(tokens)
