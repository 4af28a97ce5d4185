"""Append-only rows on disk: sealed segments of zstd-compressed JSON lines, safe against SIGKILL.

A segment is written whole under a temporary name, synced and renamed, so a name that ends in
``.jsonl.zst`` is always complete. Rows not yet sealed are lost with the process and drawn again
with the same seeds, unless a journal is kept: then what the process had been given survives it, and
only a machine's crash loses them. Nothing is ever counted twice, because readers keep the first row
of a key.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import zstandard

from evaluator.errors import StoreError

SUFFIX = ".jsonl.zst"
JOURNAL = ".journal"
SEAL_SECONDS = 5.0
SEAL_ROWS = 1000
SEAL_BYTES = 8 << 20  # of text, so that memory does not grow with the length of responses
MOST_BYTES = 512 << 20  # of a segment's text: one endpoint's answer may have 64 MiB, escapes more

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A segment file that is complete and synced. ``sha256`` is over the compressed bytes."""

    name: str
    rows: int
    bytes: int
    sha256: str


class SegmentWriter:
    """Collects rows and seals them into segments every few seconds.

    Files are called ``{prefix}-{sequence:05d}.jsonl.zst``; the prefix names the shard and the
    lease, so that two writers never share a file. With ``journal`` each row is also written at once
    to ``{prefix}.journal``, which is locked while the writer is open and gone once it is closed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        prefix: str,
        seal_seconds: float = SEAL_SECONDS,
        seal_rows: int = SEAL_ROWS,
        seal_bytes: int = SEAL_BYTES,
        on_seal: Callable[[SealedSegment], None] | None = None,
        journal: bool = False,
    ) -> None:
        self.folder = folder
        self.prefix = prefix
        self._seal_seconds = seal_seconds
        self._seal_rows = seal_rows
        self._seal_bytes = seal_bytes
        self._on_seal = on_seal
        self._lines: list[bytes] = []
        self._size = 0  # bytes of the lines
        self._oldest: float | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._sequence = len(list(folder.glob(f"{prefix}-*{SUFFIX}")))
        self._journal: BinaryIO | None = None
        if journal:
            self._journal = (folder / f"{prefix}{JOURNAL}").open("ab", buffering=0)
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; seals when the unsealed ones are many, long or ``seal_seconds`` old."""
        # A lone surrogate has no UTF-8; with its backslash it is a JSON escape.
        line = json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace")
        self._lines.append(line + b"\n")
        if self._journal is not None:
            self._journal.write(self._lines[-1])
        self._size += len(line) + 1
        now = time.monotonic()
        if self._oldest is None:
            self._oldest = now
        if (
            now - self._oldest >= self._seal_seconds
            or len(self._lines) >= self._seal_rows
            or self._size >= self._seal_bytes
        ):
            self.seal()

    def seal(self) -> SealedSegment | None:
        """Write the collected rows as one segment; None when there are none."""
        if not self._lines:
            return None
        compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
        data = compressor.compress(b"".join(self._lines))
        name = f"{self.prefix}-{self._sequence:05d}{SUFFIX}"
        write_durably(self.folder / name, data)
        sealed = SealedSegment(name, len(self._lines), len(data), hashlib.sha256(data).hexdigest())
        self._lines = []
        self._size = 0
        self._oldest = None
        self._sequence += 1
        if self._journal is not None:
            self._journal.truncate(0)
        if self._on_seal is not None:
            self._on_seal(sealed)
        return sealed

    def close(self) -> None:
        """Seal, and take the journal away; it stays where sealing fails."""
        journal = self._journal
        try:
            self.seal()
            if journal is not None:
                Path(journal.name).unlink()
        finally:
            self._journal = None
            if journal is not None:
                journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()  # rows are whole even when the work around them failed


def write_durably(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds all of it or does not exist."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)  # a full disk: the torn part would only fill it more
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_segment(path: Path, *, sha256: str | None = None) -> Iterator[tuple[int, Row]]:
    """Yield (offset, row) of a segment; offsets are bytes in the decompressed text.

    Raises StoreError when the file is torn, is not the one that ``sha256`` names, or would unpack
    to more than ``MOST_BYTES``: a worker next to untrusted programs may have written it.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise StoreError(f"segment {path.name}: larger than any that is sealed here.")
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"segment {path.name}: cannot be read ({error.strerror}).") from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise StoreError(f"segment {path.name}: its bytes are not the ones that were sealed.")
    try:
        # Its beginning says how much it holds, and the library holds it to that.
        if not 0 <= zstandard.frame_content_size(data) <= MOST_BYTES:
            raise StoreError(f"segment {path.name}: holds more than any that is sealed here.")
        frame = zstandard.ZstdDecompressor().decompressobj()
        text = frame.decompress(data)
    except zstandard.ZstdError as error:
        raise StoreError(f"segment {path.name}: torn ({error}).") from error
    if not frame.eof or frame.unused_data:
        raise StoreError(f"segment {path.name}: torn (it is not one whole frame).")
    offset = 0
    for line in text.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            raise StoreError(f"segment {path.name}: torn (its last line has no end).")
        yield offset, json.loads(line)
        offset += len(line)


def read_row(path: Path, offset: int) -> Row:
    """Return the row that starts at ``offset`` of the decompressed segment."""
    for at, row in read_segment(path):
        if at == offset:
            return row
    raise StoreError(f"segment {path.name}: no row starts at offset {offset}.")


class Store:
    """One run's completions in a folder of segments, keyed (problem id, sample).

    For the command line: every complete segment in the folder counts. (A worker's child counts
    only the segments that the database accepted; see ``evaluator.child``.)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def rows(self) -> Iterator[Row]:
        """Yield each key's first row, in order of segment name; torn segments are set aside.

        A row with an ``error`` counts only while no other row of its key came.
        """
        self._recover()
        seen: set[tuple[str, int]] = set()
        failed: dict[tuple[str, int], Row] = {}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                rows = list(read_segment(path))
            except StoreError:
                path.replace(path.with_name(path.name + ".torn"))
                continue
            for _, row in rows:
                key = (row["problem_id"], row["sample"])
                if row.get("error") is not None:
                    failed.setdefault(key, row)
                elif key not in seen:
                    seen.add(key)
                    yield row
        yield from (row for key, row in failed.items() if key not in seen)

    def keys(self) -> set[tuple[str, int]]:
        """Keys that are already drawn; those that failed are not among them."""
        return {
            (row["problem_id"], row["sample"]) for row in self.rows() if row.get("error") is None
        }

    def writer(self, **options: Any) -> SegmentWriter:
        """A writer whose files sort after all earlier ones'."""
        prefix = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        return SegmentWriter(self.folder, prefix=prefix, **options)

    def _recover(self) -> None:
        """Seal what the journals of dead writers hold, up to the first torn line."""
        for path in sorted(self.folder.glob(f"*{JOURNAL}")):
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # its writer lives
                rows = []
                for line in file:
                    try:
                        row = json.loads(line)
                    except ValueError:
                        break
                    if not line.endswith(b"\n"):
                        break
                    rows.append(row)
                writer = SegmentWriter(self.folder, prefix=path.name.removesuffix(JOURNAL))
                for row in rows[self._sealed_at_the_end(writer.prefix, rows) :]:
                    writer.append(row)
                writer.seal()
                path.unlink()

    def _sealed_at_the_end(self, prefix: str, rows: list[Row]) -> int:
        """How many of a journal's first ``rows`` its writer sealed before it died.

        Death between sealing and emptying the journal leaves the last segment's rows in both.
        """
        segments = sorted(self.folder.glob(f"{prefix}-*{SUFFIX}"))
        try:
            sealed = [row for _, row in read_segment(segments[-1])] if segments else []
        except StoreError:
            return 0  # rows() sets the segment aside, so that the journal's are the only ones
        return len(sealed) if rows[: len(sealed)] == sealed else 0
