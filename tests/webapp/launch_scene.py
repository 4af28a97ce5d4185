"""What tests of launch pages begin with: what can be launched, and forms as browsers send them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.test import Client

from tests.webapp.samples import arithmetic, make_benchmark, make_checkpoint
from webapp.benchmarks.services import install_prompt_set
from webapp.runs import files

RECIPE = "teacher: teacher\nbase: base\nstudent: s\nprompts: {set: sums}\n"
SHAPE = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 512,
    "intermediate_size": 256,
}  # fmt: skip
CHATS = b'{"prompt": "Hello?", "response": "Hello."}\n{"prompt": "a", "response": "b"}\n'


def install(user: Any, settings: Any, tmp_path: Path) -> Any:
    """A teacher, a base (returned), prompts and a benchmark; files in a folder of the test."""
    settings.MEDIA_ROOT = tmp_path
    problems = arithmetic(6)
    make_checkpoint(user, "teacher", context_tokens=1000)
    base = make_checkpoint(user, "base", context_tokens=2000)
    folder = files.store_path(base.path)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SHAPE))
    install_prompt_set("sums", problems)
    make_benchmark(problems)
    return base


def shown(response: Any) -> dict[str, Any]:
    """What a browser would send of the form on a page."""
    values = {each.name: each.value() for each in response.context["form"]}
    return {
        name: value
        for name, value in values.items()
        if value is not None and value is not False and value != "" and name != "general_file"
    }


def pasted(page: Client, text: str, **headers: str) -> Any:
    return page.post("/runs/distil/", {"action": "paste", "yaml": text}, headers=headers or None)
