"""A report in each of its forms, through one function: page, PDF, JSON, tables, signed bundle."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from evaluator import bundle, report, report_pdf
from evaluator.errors import InputError
from evaluator.spreadsheet import csv_text
from evaluator.store import Row, write_durably

Format = Literal["html", "pdf", "json", "csv", "parquet", "zip"]
FORMATS: tuple[Format, ...] = get_args(Format)
# One row for each sample; where an outcome is disputed, ``disputed`` is what it is said to be.
COLUMNS: Mapping[str, type] = {
    "problem_id": str, "subject": str, "level": str, "sample": int, "outcome": str,
    "disputed": str, "answer": str, "gold": str, "reason": str, "verdict": str,
    "finish_reason": str, "prompt_tokens": int, "completion_tokens": int,
}  # fmt: skip
COMPLETIONS, PROBLEMS = "completions.jsonl.gz", "problems.jsonl"
_PARQUET_ROWS = 10_000
_README = """# {title}

This bundle was made by Retort {version} at {generated_at}.

`manifest.json` holds the SHA-256 of every file, `manifest.sig` the maker's Ed25519 signature over
it, `public_key.pem` the key. Ask the maker for the key by another way than this file. Check it with

    python -m evaluator verify-report BUNDLE.zip --key public_key.pem

{rescore}
"""
_RESCORE = """The completions and problems are in it. Unpacked into the folder `bundle`, it is
scored again, without a model, by

    {command}

and gives the figures of `metrics.json`. (The run fingerprint differs: nothing was drawn
again.{rated})"""
_WITHHELD = """The benchmark's authors ask that its problems not be put in the open, so neither
problems nor completions are in it; it can be verified, but not scored again from here."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a report is made of, wherever it comes from.

    ``data`` is what :func:`report.html` takes, its texts already withheld where they must be.
    ``rows`` yields every sample's figures with COLUMNS' names; ``problems`` (``Problem.to_json``)
    and ``completions`` (``Completion.to_json``) are None where they must not leave.
    """

    data: Mapping[str, Any]
    benchmark: str  # the registry's name
    samples: int
    rows: Callable[[], Iterable[Row]]
    problems: Callable[[], Iterable[Row]] | None
    completions: Callable[[], Iterable[Row]] | None


def write(
    content: Content,
    form: Format,
    target: Path,
    *,
    key: Callable[[], Ed25519PrivateKey] | None = None,
) -> None:
    """Write the report as ``form``, whole or not at all; ``key`` signs a bundle.

    Raises InputError where a form cannot be made here (no pango, no key), PdfError for a page that
    is too much, and StoreError for texts that cannot be read.
    """
    match form:
        case "html":
            write_durably(target, report.html(content.data).encode())
        case "pdf":
            report_pdf.write_pdf(report.html(content.data), target)
        case "json":
            write_durably(target, json_bytes(content))
        case "csv":
            write_durably(target, csv_bytes(content))
        case "parquet":
            _write_parquet(content, target)
        case "zip":
            if key is None:
                raise InputError("zip: a bundle needs a signing key; give one.")
            _write_bundle(content, target, key())


def checked(form: str) -> Format:
    """``form`` as a known one; raises InputError naming them."""
    if form not in FORMATS:
        raise InputError(f"format: {form!r} is not one of {', '.join(FORMATS)}.")
    return form


def json_bytes(content: Content) -> bytes:
    """The report for programs: its data, and every sample's figures in place of the appendix."""
    data = report.as_json({**content.data, "samples": list(content.rows())})
    return _encoded(json.dumps(data, ensure_ascii=False, indent=1) + "\n")


def csv_bytes(content: Content) -> bytes:
    """Every sample's figures as CSV, safe to open in a spreadsheet."""
    rows = ([row.get(name) for name in COLUMNS] for row in content.rows())
    return csv_text(list(COLUMNS), rows).encode(errors="replace")


def _write_parquet(content: Content, target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [(name, pa.int64() if kind is int else pa.string()) for name, kind in COLUMNS.items()]
    )
    part = target.with_name(f".{target.name}.part")
    try:
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for batch in _batches(content.rows(), _PARQUET_ROWS):
                columns = [[_storable(row.get(name)) for row in batch] for name in COLUMNS]
                writer.write_table(pa.table(columns, schema=schema))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _write_bundle(content: Content, target: Path, key: Ed25519PrivateKey) -> None:
    data = content.data
    with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent) as name:
        folder = Path(name)
        for form in FORMATS:
            if form != "zip" and (form != "pdf" or report_pdf.available()):
                write(content, form, folder / f"report.{form}")
        _write_json(folder / "metrics.json", data["metrics"])
        _write_json(folder / "protocol.json", data["protocol"])
        if disputes := data.get("disputes"):
            _write_lines(folder / "disputes.jsonl", disputes["items"])
        if content.problems is not None and content.completions is not None:
            _write_lines(folder / PROBLEMS, content.problems())
            _write_completions(folder / COMPLETIONS, content.completions())
        readme = _README.format(**{k: data[k] for k in ("title", "version", "generated_at")},
                                rescore=_how_to_rescore(content))  # fmt: skip
        (folder / "README.md").write_bytes(_encoded(readme))
        about = {k: data[k] for k in ("title", "generated_at", "version", "measurement_hash",
                                      "run_fingerprint")}  # fmt: skip
        if data.get("notice"):
            about["notice"] = data["notice"]
        bundle.pack(folder, target, key, about | {"benchmark": content.benchmark})


def _how_to_rescore(content: Content) -> str:
    if content.completions is None or content.problems is None:
        return _WITHHELD
    rated = "rating" in content.data["metrics"]
    return _RESCORE.format(
        command=" ".join(rescore_command(content.benchmark, content.samples, "bundle")),
        rated="\nThe rating takes the contests' bundles, `--contests`." if rated else "",
    )


def rescore_command(benchmark: str, samples: int, folder: str) -> list[str]:
    """The command that scores an unpacked bundle again."""
    return [
        "python", "-m", "evaluator", "score", "--benchmark", benchmark,
        "--problems", f"{folder}/{PROBLEMS}", "--completions", f"{folder}/{COMPLETIONS}",
        "--protocol", f"{folder}/protocol.json", "--samples", str(samples),
        "--output", "again.json",
    ]  # fmt: skip


def _write_completions(path: Path, rows: Iterable[Row]) -> None:
    """Rows as ``score`` reads them; what failed is left out, as it has no completion."""
    with path.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        for row in rows:
            if row.get("error") is None:
                kept = {name: value for name, value in row.items() if name not in ("text", "error")}
                packed.write(_encoded(json.dumps({**kept, "completion": row["text"]},
                                                 ensure_ascii=False) + "\n"))  # fmt: skip


def _write_lines(path: Path, rows: Iterable[Row]) -> None:
    with path.open("wb") as file:
        for row in rows:
            file.write(_encoded(json.dumps(row, ensure_ascii=False) + "\n"))


def _write_json(path: Path, value: Any) -> None:
    path.write_bytes(_encoded(json.dumps(value, ensure_ascii=False, indent=1) + "\n"))


def _encoded(text: str) -> bytes:
    """JSON text as UTF-8; a lone surrogate becomes its JSON escape."""
    return text.encode(errors="backslashreplace")


def _storable(value: Any) -> Any:
    """A text as Parquet takes it: without half a surrogate pair."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
