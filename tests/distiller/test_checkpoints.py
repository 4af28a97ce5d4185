"""What inspect() reads, and what it refuses."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distiller.checkpoints import content_hash, inspect, weights
from distiller.errors import CheckpointError
from distiller.verifying import unchecked, verify, verify_in_child


@pytest.fixture
def folder(tiny_qwen: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_qwen, tmp_path / "model"))


def test_figures_agree_with_the_loaded_model(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    info = inspect(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert info.parameters == sum(p.numel() for p in model.parameters())
    assert (info.architecture, info.dtype) == ("Qwen2ForCausalLM", "float32")
    assert (info.context_tokens, info.has_chat_template) == (256, True)
    assert info.size_bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_hash_depends_on_names_and_contents_only(folder: Path, tmp_path: Path) -> None:
    before = content_hash(folder)
    assert content_hash(Path(shutil.copytree(folder, tmp_path / "other name"))) == before
    (folder / "README.md").write_text("a note")
    with_note = content_hash(folder)
    (folder / "README.md").rename(folder / "NOTES.md")
    assert len({before, with_note, content_hash(folder)}) == 3


def _edit_json(name: str, **values: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return edit


def _write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _overlap(folder: Path) -> None:
    header = json.dumps(
        {name: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for name in "ab"}
    ).encode()
    data = struct.pack("<Q", len(header)) + header + b"1234"
    (folder / "model.safetensors").write_bytes(data)


def _wrong_shape(folder: Path) -> None:
    header = b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}'
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"1234")


BAD = {
    "pickle": (_write("pytorch_model.bin", b"x"), "pickled"),
    "pickle below": (lambda f: (f / "a").mkdir() or _write("a/x.pt", b"x")(f), "a/x.pt: pickled"),
    "code": (_write("modeling.py", b"x"), "must bring no code"),
    "adapter": (_write("adapter_config.json", b"{}"), "merge the adapter first"),
    "adapter below": (
        lambda f: (f / "a").mkdir() or _write("a/Adapter_model.safetensors", b"")(f),
        "a/Adapter_model.safetensors: an adapter stands",
    ),
    "unknown kind": (_write("data.xyz", b"x"), "no file of this kind"),
    "auto_map": (_edit_json("config.json", auto_map={"AutoModel": "m.M"}), "auto_map"),
    "tokenizer auto_map": (_edit_json("tokenizer_config.json", auto_map={}), "auto_map"),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "config is a list": (_write("config.json", b"[]"), "must be a JSON object"),
    "config torn": (_write("config.json", b'{"a'), "not JSON"),
    "no architecture": (_edit_json("config.json", architectures=[]), "no architectures"),
    "architecture is no name": (
        _edit_json("config.json", architectures=["Qwen2\0ForCausalLM"]), "names no class",
    ),
    "architecture is no text": (_edit_json("config.json", architectures=[[]]), "names no class"),
    "architecture too long": (_edit_json("config.json", architectures=["Q" * 101]), "no class"),
    "context too long": (
        _edit_json("config.json", max_position_embeddings=2**31), "must lie between 1 and",
    ),
    "no context": (_edit_json("config.json", max_position_embeddings=0), "must lie between 1 and"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
    "tokenizer torn": (_write("tokenizer.json", b"{"), "not JSON"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no *.safetensors"),
    "weights torn": (_truncate, "the header promises"),
    "weights empty": (_write("model.safetensors", b""), "header does not fit"),
    "header lies": (_write("model.safetensors", struct.pack("<Q", 1 << 62) + b"{}"), "not fit"),
    "header garbage": (_write("model.safetensors", struct.pack("<Q", 4) + b"\xff{}}"), "be read"),
    "tensors overlap": (_overlap, "overlap"),
    "shape lies": (_wrong_shape, "cannot be read"),
    "shard missing": (
        _write("model.safetensors.index.json", b'{"weight_map": {"a": "model-2.safetensors"}}'),
        "model-2.safetensors: named by",
    ),
    "no model_type": (_edit_json("config.json", model_type=None), "names no model_type"),
    "tokenizer empty": (_write("tokenizer.json", b"{}"), "holds no vocabulary"),
    "weights astray": (
        lambda f: shutil.copyfile(f / "model.safetensors", f / "old.safetensors") and None,
        "old.safetensors: weights that nothing would load",
    ),
    "index leads out": (
        _write("model.safetensors.index.json", b'{"weight_map": {"a": "../model.safetensors"}}'),
        "named by model.safetensors.index.json but missing",
    ),
    "index forgets": (
        _write("model.safetensors.index.json", b'{"weight_map": {"a": "model.safetensors"}}'),
        "puts elsewhere",
    ),
    "header huge": (
        _write("model.safetensors", struct.pack("<Q", 33_000_000) + b" " * 33_000_001),
        "larger than 32 MB",
    ),
    "key twice": (
        _write("model.safetensors", struct.pack("<Q", 15) + b'{"a":1,"a":  2}'), "cannot be read"
    ),
    "link": (lambda f: (f / "more.json").symlink_to(f / "config.json"), "symbolic links"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_refused_in_one_sentence(case: str, folder: Path) -> None:
    spoil, sentence = BAD[case]
    spoil(folder)
    with pytest.raises(CheckpointError) as caught:
        inspect(folder)
    message = str(caught.value)
    assert sentence in message
    assert message.endswith(".")
    assert "\n" not in message


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        inspect(tmp_path / "none")


def test_an_index_that_promises_too_much_is_refused(folder: Path) -> None:
    names = dict.fromkeys([*weights(folder), "one more"], "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(CheckpointError, match=r"lacks 'one more'"):
        inspect(folder)


def _change(edit: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


Q, K = (f"model.layers.0.self_attn.{name}_proj.weight" for name in "qk")
UNFIT = {
    "missing": (_change(lambda t: t.pop("model.norm.weight")), "lacks 'model.norm.weight'"),
    "too many": (_change(lambda t: t.update(extra=t[Q].clone())), "holds 'extra'"),
    "shape": (_change(lambda t: t.update({Q: t[Q][:3].clone()})), rf"{Q} has the shape \(3, 32\)"),
    "numbers": (_change(lambda t: t.update({Q: t[Q].to(dtype=t[Q].int().dtype)})), "int32 numbers"),
    "config": (
        _edit_json("config.json", num_hidden_layers=2, layer_types=None), "lacks 'model.layers.1"
    ),
    "layers": (_edit_json("config.json", num_hidden_layers=2), "the config cannot be loaded"),
    "kind": (_edit_json("config.json", model_type="qwen99"), "cannot be loaded"),
    "no language model": (_edit_json("config.json", model_type="vit"), "cannot be loaded"),
    "tokenizer": (_write("tokenizer.json", b'{"model": {"vocab": [1]}}'), "the tokenizer cannot"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_its_config_passes_inspection_and_is_refused_by_verify(
    case: str, folder: Path
) -> None:
    spoil, sentence = UNFIT[case]
    spoil(folder)
    inspect(folder)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        verify(folder)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_an_adapter_hides_no_hole_in_the_weights(folder: Path) -> None:
    """Loading beside an adapter reports on the adapter alone: a hole in the base would not show."""
    from safetensors.torch import load_file, save_file

    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    lora = {
        f"base_model.model.{Q.removesuffix('.weight')}.lora_{side}.weight": part
        for side, part in (("A", whole[Q][:2].clone()), ("B", whole[Q][:, :2].clone()))
    }
    base = {name: tensor for name, tensor in whole.items() if ".mlp." not in name}
    base["junk.weight"] = whole[Q].clone()
    where = {}
    for file, tensors in (("base.safetensors", base), ("adapter_model.safetensors", lora)):
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": where})
    )
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"],
                    "task_type": "CAUSAL_LM", "base_model_name_or_path": str(folder)})
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="merge the adapter first"):
        verify(folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match="merge the adapter first"):
        verify(folder)


def test_tied_weights_may_be_left_out_and_others_may_not(folder: Path) -> None:
    _change(lambda tensors: tensors.pop("lm_head.weight"))(folder)
    with pytest.raises(CheckpointError, match=r"lacks 'lm_head\.weight'"):
        verify(folder)
    _edit_json("config.json", tie_word_embeddings=True)(folder)
    assert verify(folder) == inspect(folder)


def test_of_quantised_weights_it_is_said_what_was_not_checked(folder: Path) -> None:
    """Packed tensors of other names and shapes pass; torn files do not."""
    assert unchecked(folder) is None
    _edit_json("config.json", quantization_config={"quant_method": "gptq", "bits": 4})(folder)
    _change(lambda t: t.update({f"{Q}_packed": t.pop(Q)[:3].to(dtype=t[K].int().dtype)}))(folder)
    assert verify(folder) == inspect(folder)
    done = subprocess.run(
        [sys.executable, "-m", "distiller", "verify", str(folder)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"not checked: {unchecked(folder)}" in done.stdout
    assert "quantised (gptq), so tensors were not held against the config" in done.stdout
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="torn"):
        verify(folder)


def test_verify_runs_in_a_child_and_says_the_same(folder: Path) -> None:
    _change(lambda tensors: tensors.pop("model.norm.weight"))(folder)
    with pytest.raises(CheckpointError, match=r"^model: lacks 'model.norm.weight'"):
        verify_in_child(folder)
    with pytest.raises(CheckpointError, match="not verified within"):
        verify_in_child(folder, timeout_seconds=0.01)
