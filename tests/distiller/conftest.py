"""A tiny checkpoint for all tests, and real tokenizers."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.distiller.samples import make_tiny, sums

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("qwen2", tmp_path_factory.mktemp("qwen") / "model")


@pytest.fixture(scope="session")
def eight(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of eight examples."""
    return sums(8, tiny_qwen, tmp_path_factory.mktemp("eight") / "corpus")


@pytest.fixture
def shared_tokenizer(tmp_path: Path, tiny_qwen: Path) -> Any:
    """Lays a real tokenizer beside a config, as a base checkpoint's folder has it."""

    def prepare(name: str) -> Path:
        source = SHARED / "tokenizers" / name
        folder = tmp_path / name
        folder.mkdir()
        shutil.copyfile(tiny_qwen / "config.json", folder / "config.json")
        (folder / "tokenizer.json").write_bytes(
            gzip.decompress((source / "tokenizer.json.gz").read_bytes())
        )
        shutil.copyfile(source / "tokenizer_config.json", folder / "tokenizer_config.json")
        return folder

    return prepare
