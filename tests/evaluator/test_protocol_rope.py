"""A rope override gives what a checkpoint with that in its own config would give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evaluator.engines import create
from evaluator.engines.base import Request
from evaluator.errors import InputError
from evaluator.protocol import Protocol, Sampling, engine_settings, run_fingerprint

LONG = "Add the numbers " + "1+2+3+4+5+6+7+8+9+" * 7 + "0."  # beyond the checkpoint's 96 positions


def _texts(settings: dict[str, Any], prompt: str = LONG) -> list[str]:
    engine = create({"name": "transformers", "device": "cpu", **settings})
    requests = [Request("p", sample, prompt, seed=sample) for sample in range(3)]
    done = engine.generate(requests, Sampling(temperature=1.0, max_tokens=40))
    texts = {completion.sample: completion.text for completion in done}
    engine.close()
    return [texts[sample] for sample in range(3)]


@pytest.mark.parametrize("kind", ["yarn", "linear", "dynamic"])
def test_an_override_is_the_config_written_otherwise(
    tiny_checkpoint: Path, tmp_path: Path, kind: str
) -> None:
    protocol = Protocol.model_validate({"rope": {"kind": kind, "factor": 4}})
    edited = tmp_path / "edited"
    shutil.copytree(tiny_checkpoint, edited)
    config = json.loads((edited / "config.json").read_text())
    config["max_position_embeddings"] = 96 * 4
    config["rope_parameters"] |= {
        "rope_type": kind, "factor": 4.0, "original_max_position_embeddings": 96,
    }  # fmt: skip
    (edited / "config.json").write_text(json.dumps(config))
    overridden = {"model": str(tiny_checkpoint), **engine_settings(protocol)}
    assert _texts(overridden) == _texts({"model": str(edited)})
    plain = {"model": str(tiny_checkpoint)}
    assert _texts(overridden, "Add 1.") == _texts({"model": str(edited)}, "Add 1.")
    if kind != "dynamic":  # which stretches nothing before it has to
        assert _texts(overridden, "Add 1.") != _texts(plain, "Add 1.")


def test_the_stretched_context_is_shown_and_moves_the_run_fingerprint(
    tiny_checkpoint: Path,
) -> None:
    protocol = Protocol.model_validate({"rope": {"factor": 2.5}, "context_tokens": 200})
    base = {"name": "transformers", "model": str(tiny_checkpoint)}
    described = create(base | engine_settings(protocol)).describe()
    assert described["context_tokens"] == 200
    assert described["overrides"]["max_position_embeddings"] == 240
    assert described["overrides"]["rope_parameters"]["rope_type"] == "yarn"
    with pytest.raises(InputError, match="context_tokens: 241 asked for, but the model has 240"):
        create(base | engine_settings(protocol) | {"context_tokens": 241})
    prints = {run_fingerprint(p, samples=1, engine={}) for p in (protocol, Protocol())}
    assert len(prints) == 2
    with pytest.raises(InputError, match="rope"):
        create({"name": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
               | engine_settings(protocol))  # fmt: skip


def test_a_protocol_without_overrides_asks_nothing_of_an_engine() -> None:
    assert engine_settings(Protocol()) == {}
