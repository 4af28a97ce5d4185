"""Sealed rows survive anything; unsealed rows are lost whole; nothing counts twice."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import fields
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.errors import StoreError
from evaluator.records import Completion, FinishReason
from evaluator.store import MOST_BYTES, SUFFIX, SegmentWriter, Store, read_row, read_segment

# Lone surrogates included: model output can hold them.
texts = st.text(st.characters(blacklist_categories=()), max_size=40)


def row(problem_id: str, sample: int, text: str = "x", **more: object) -> dict[str, object]:
    return {"problem_id": problem_id, "sample": sample, "text": text, **more}


@settings(max_examples=50, deadline=None)
@given(st.lists(texts, min_size=1, max_size=8))
def test_what_is_sealed_is_read_back_row_by_row_and_by_offset(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        writer = SegmentWriter(Path(name), prefix="p")
        rows = [row("a", sample, text) for sample, text in enumerate(lines)]
        for item in rows:
            writer.append(item)
        sealed = writer.seal()
        assert sealed is not None
        path = Path(name) / sealed.name
        read = list(read_segment(path, sha256=sealed.sha256))
        assert [item for _, item in read] == rows
        assert sealed.rows == len(rows)
        assert sealed.bytes == path.stat().st_size
        assert [read_row(path, offset) for offset, _ in read] == rows


def test_a_segment_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, prefix="p")
    for sample in range(5):
        writer.append(row("a", sample, f"text {sample}"))
    sealed = writer.seal()
    assert sealed is not None
    whole = (tmp_path / sealed.name).read_bytes()
    torn = tmp_path / "torn"
    for length in range(len(whole)):
        torn.write_bytes(whole[:length])
        with pytest.raises(StoreError):
            list(read_segment(torn, sha256=sealed.sha256))
        with pytest.raises(StoreError):
            list(read_segment(torn))


@pytest.mark.parametrize("told", [True, False])
def test_a_packed_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Whether its beginning tells its size or not; a worker that was taken over may write one."""
    chunks = MOST_BYTES // (1 << 20) + 1
    packer = zstandard.ZstdCompressor().compressobj(**({"size": chunks << 20} if told else {}))
    packed = b"".join(packer.compress(b"\n" * (1 << 20)) for _ in range(chunks)) + packer.flush()
    assert len(packed) < 1 << 20
    (tmp_path / "bomb").write_bytes(packed)
    monkeypatch.setattr(zstandard, "ZstdDecompressor", None)
    with pytest.raises(StoreError, match="holds more than any"):
        list(read_segment(tmp_path / "bomb"))
    with (tmp_path / "long").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(StoreError, match="larger than any"):
        list(read_segment(tmp_path / "long"))


def test_another_file_under_the_same_name_is_refused(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, prefix="p")
    writer.append(row("a", 0))
    first = writer.seal()
    writer.append(row("a", 1))
    second = writer.seal()
    assert first is not None
    assert second is not None
    (tmp_path / second.name).replace(tmp_path / first.name)
    with pytest.raises(StoreError, match="not the ones that were sealed"):
        list(read_segment(tmp_path / first.name, sha256=first.sha256))


def test_a_write_that_fails_leaves_no_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    writer = store.writer()
    writer.append(row("a", 0))

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            writer.seal()
    assert list(tmp_path.glob(f"*{SUFFIX}")) == []
    assert store.keys() == set()
    writer.seal()  # the rows are still there for another try
    assert store.keys() == {("a", 0)}


def test_the_first_row_of_a_key_counts_and_an_error_only_until_a_row_comes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writer() as writer:
        writer.append(row("a", 0, "first"))
        writer.append(row("b", 0, "", error="the connection broke"))
        writer.append(row("c", 0, "", error="the connection broke"))
    with store.writer() as writer:
        writer.append(row("a", 0, "second"))
        writer.append(row("b", 0, "mended"))
    read = {item["problem_id"]: item for item in store.rows()}
    assert read["a"]["text"] == "first"
    assert read["b"]["text"] == "mended"
    assert read["c"]["error"]
    assert len(list(store.rows())) == 3
    assert store.keys() == {("a", 0), ("b", 0)}


def test_a_torn_segment_is_set_aside_and_the_others_count(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writer() as writer:
        writer.append(row("a", 0))
    with store.writer() as writer:
        writer.append(row("b", 0))
    second = sorted(tmp_path.glob(f"*{SUFFIX}"))[1]
    second.write_bytes(second.read_bytes()[:-3])
    assert store.keys() == {("a", 0)}
    assert not second.exists()
    assert second.with_name(second.name + ".torn").exists()


def test_rows_seal_by_number_and_a_reopened_writer_goes_on_counting(tmp_path: Path) -> None:
    names = []
    writer = SegmentWriter(
        tmp_path, prefix="p", seal_rows=2, on_seal=lambda sealed: names.append(sealed.name)
    )
    for sample in range(5):
        writer.append(row("a", sample))
    assert names == ["p-00000.jsonl.zst", "p-00001.jsonl.zst"]
    again = SegmentWriter(tmp_path, prefix="p")
    again.append(row("b", 0))
    sealed = again.seal()
    assert sealed is not None
    assert sealed.name == "p-00002.jsonl.zst"
    assert again.seal() is None


def test_long_rows_are_sealed_before_they_fill_the_memory(tmp_path: Path) -> None:
    sealed: list[int] = []
    with SegmentWriter(
        tmp_path, prefix="p", seal_bytes=1000, on_seal=lambda segment: sealed.append(segment.rows)
    ) as writer:
        for sample in range(10):
            writer.append(row("a", sample, "x" * 400))
    assert sealed == [3, 3, 3, 1]


@settings(max_examples=40, deadline=None)
@given(st.lists(texts, min_size=1, max_size=6), st.integers(0, 10_000))
def test_a_journal_gives_back_every_whole_row_of_a_writer_that_was_killed(
    lines: list[str], cut: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name))
        writer = store.writer(journal=True)
        rows = [row("a", sample, text) for sample, text in enumerate(lines)]
        sizes = [0]
        [journal] = Path(name).glob("*.journal")
        for item in rows:
            writer.append(item)
            sizes.append(journal.stat().st_size)
        assert not list(store.rows()), "a living writer is left alone"
        data = journal.read_bytes()[: cut % (sizes[-1] + 1)]
        writer.close()
        for path in Path(name).iterdir():
            path.unlink()
        journal.write_bytes(data)  # what a kill in the middle of a row would leave
        whole = sum(size <= len(data) for size in sizes) - 1
        assert list(store.rows()) == rows[:whole]
        assert not list(Path(name).glob("*.journal"))
        assert list(store.rows()) == rows[:whole]


def test_a_journal_holds_only_what_is_not_sealed_and_goes_with_its_writer(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writer(journal=True) as writer:
        writer.append(row("a", 0))
        writer.seal()
        [journal] = tmp_path.glob("*.journal")
        assert journal.stat().st_size == 0
        writer.append(row("a", 1))
        assert len(journal.read_bytes().splitlines()) == 1
    assert not journal.exists()
    assert store.keys() == {("a", 0), ("a", 1)}


def test_death_between_sealing_and_emptying_the_journal_repeats_no_row(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = store.writer(journal=True)
    rows = [row("a", sample) for sample in range(5)]
    for item in rows[:3]:
        writer.append(item)
    [journal] = tmp_path.glob("*.journal")
    before = journal.read_bytes()
    writer.seal()
    for item in rows[3:]:
        writer.append(item)
    after = journal.read_bytes()
    name = writer.prefix
    writer.close()
    (tmp_path / f"{name}-00001{SUFFIX}").unlink()  # what was sealed only because it was closed
    for left, expected in ((before, rows[:3]), (after, rows)):
        journal.write_bytes(left)
        assert list(store.rows()) == expected
        written = [r for path in tmp_path.glob(f"*{SUFFIX}") for _, r in read_segment(path)]
        assert len(written) == len(expected)


def test_a_completions_row_holds_every_field_and_comes_back_the_same() -> None:
    full = Completion(
        "p", 3, "text", FinishReason.LENGTH, 5, 7, 11, "thoughts", options=(2, 0, 1), error="why"
    )
    assert set(full.to_json()) == {field.name for field in fields(Completion)}
    assert Completion.from_json(json.loads(json.dumps(full.to_json()))) == full
