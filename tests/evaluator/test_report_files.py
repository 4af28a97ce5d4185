"""A report in every form: what each holds; a bundle cannot be changed, and it scores again."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from playwright.sync_api import sync_playwright

from evaluator import bundle, report, report_files, report_pdf, signing
from evaluator.benchmarks.arithmetic import generate
from evaluator.cli import main
from evaluator.disputes import Dispute
from evaluator.engines.replay import ReplayEngine
from evaluator.errors import InputError
from evaluator.graders.pool import GraderPool
from evaluator.local import LocalRun, write_json_lines
from evaluator.local_report import content_of
from evaluator.protocol import preset
from evaluator.records import Outcome, Problem
from evaluator.report_files import Content, Format

ROOT = Path(__file__).parents[2]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SECRET = "what nobody may post"
FORMULA = "=HYPERLINK(1)"


@pytest.fixture(scope="module")
def pool() -> Any:
    with GraderPool(jobs=1) as graders_at_work:
        yield graders_at_work


def make_run(
    folder: Path,
    problems: list[Problem],
    pool: GraderPool,
    text: Callable[[Problem, int], str],
    benchmark: str = "arithmetic",
    samples: int = 4,
) -> LocalRun:
    rows = [
        {"problem_id": problem.id, "sample": sample, "completion": text(problem, sample),
         "finish_reason": "stop", "completion_tokens": 10 + sample,
         "options": list(range(len(problem.options)))}
        for problem in problems
        for sample in range(samples)
        if (problem.id, sample) != (problems[-1].id, samples)
    ]  # fmt: skip
    folder.parent.mkdir(exist_ok=True)
    source = folder.parent / f"{folder.name}.jsonl"
    write_json_lines(source, rows)
    engine = ReplayEngine(source)
    run = LocalRun.begin(
        folder, benchmark=benchmark, problems=problems, protocol=preset("quick"), samples=samples,
        engine=engine.describe(), checkpoint="student",
    )  # fmt: skip
    run.draw(engine, lambda *_: None)
    run.grade(pool, on_row=lambda _: None)
    return run


def sums(problem: Problem, sample: int) -> str:
    lot = random.Random(f"{problem.id}{sample}").random()
    if lot < 0.5:
        return f"<think>I add</think>It is $\\boxed{{{problem.answer}}}$"
    return f"<think>hm</think>\\boxed{{{FORMULA}}}" if lot < 0.6 else "<think>and so"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pool: GraderPool) -> LocalRun:
    return make_run(tmp_path_factory.mktemp("r") / "run", generate(12, seed=3), pool, sums)


def content(run: LocalRun, **options: Any) -> Content:
    return content_of(run, generated_at="2026-01-02 03:04 UTC", **options)


def write(run: LocalRun, form: Format, folder: Path, **options: Any) -> Path:
    target = folder / f"report.{form}"
    report_files.write(content(run, **options), form, target, key=lambda: KEY)
    return target


@pytest.fixture(scope="module")
def packed(run: LocalRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without the PDF, which takes its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_pdf, "available", lambda: False)
        return write(run, "zip", tmp_path_factory.mktemp("bundle"))


# --- the forms


def test_tables_hold_every_sample_and_agree(run: LocalRun, tmp_path: Path) -> None:
    told = json.loads(write(run, "json", tmp_path).read_bytes())["samples"]
    columns = list(report_files.COLUMNS)
    assert len(told) == run.total
    table = pq.read_table(write(run, "parquet", tmp_path)).to_pylist()
    assert table == [{name: row.get(name) for name in columns} for row in told]
    lines = list(csv.DictReader(io.StringIO(write(run, "csv", tmp_path).read_text())))
    assert list(lines[0]) == columns
    for line, row in zip(lines, table, strict=True):
        for name in columns:
            plain = "" if row[name] is None else str(row[name])
            assert line[name].removeprefix("'") == plain, name
    assert sum(row["outcome"] == "correct" for row in table) == sum(
        row["correct"]
        for row in json.loads((run.folder / "metrics.json").read_bytes())["per_problem"]
    )


def test_a_spreadsheet_runs_nothing_of_it(run: LocalRun, tmp_path: Path) -> None:
    lines = list(csv.reader(io.StringIO(write(run, "csv", tmp_path).read_text())))
    assert any(FORMULA in cell for line in lines for cell in line)
    for line in lines:
        for cell in line:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), cell


@pytest.fixture
def without_pdf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles without the PDF, which takes its time."""
    monkeypatch.setattr(report_pdf, "available", lambda: False)


@pytest.mark.usefixtures("without_pdf")
def test_the_same_inputs_give_the_same_bytes(run: LocalRun, tmp_path: Path) -> None:
    for form in report_files.FORMATS:
        made = []
        for number in range(2):
            folder = tmp_path / f"{form}{number}"
            folder.mkdir()
            made.append(write(run, form, folder).read_bytes())
        assert made[0] == made[1], form


def test_a_pdf_is_a_pdf_and_a_missing_pango_is_a_sentence(
    run: LocalRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    made = write(run, "pdf", tmp_path).read_bytes()
    assert made.startswith(b"%PDF-")
    assert len(made) > 10_000
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    assert report_pdf._main(str(tmp_path / "none.pdf")) == 3
    said = capsys.readouterr().err
    assert "apt-get install libpango-1.0-0" in said
    broken = subprocess.CompletedProcess([], 3, b"", said.encode())
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: broken)
    with pytest.raises(InputError, match="pango is missing"):
        report_pdf.write_pdf("<p>", tmp_path / "none.pdf")
    assert not list(tmp_path.glob("*none*"))


def test_a_page_that_fails_leaves_no_pdf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_pdf, "WALL_SECONDS", 0.01)
    with pytest.raises(report_pdf.PdfError, match="took longer"):
        report_pdf.write_pdf("<p>slow", tmp_path / "slow.pdf")
    assert not list(tmp_path.iterdir())


@pytest.mark.browser
def test_the_page_opens_offline_with_its_charts_drawn(run: LocalRun, tmp_path: Path) -> None:
    page_file = write(run, "html", tmp_path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        context = browser.new_context(offline=True)
        page = context.new_page()
        faults: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        drawn = page.evaluate(
            """() => [...document.querySelectorAll("svg polyline, svg rect.solved")].map(each => {
                const box = each.getBoundingClientRect(), look = getComputedStyle(each);
                return [each.tagName, box.width, box.height,
                        each.tagName === "rect" ? look.fill : look.stroke];
            })"""
        )
        browser.close()
    assert not faults
    assert asked == [page_file.as_uri()]
    assert {shape[0] for shape in drawn} == {"polyline", "rect"}
    for name, width, height, ink in drawn:
        assert width > 5, name
        assert name == "polyline" or height > 1
        assert ink not in ("none", "rgba(0, 0, 0, 0)")


# --- bundles


def test_a_bundle_says_that_it_is_whole_and_whose_it_is(packed: Path) -> None:
    own = bundle.verify(packed)
    known = bundle.verify(packed, KEY.public_key())
    assert (own.trusted, known.trusted) == (False, True)
    assert own.fingerprint == known.fingerprint == signing.fingerprint(KEY.public_key())
    assert set(own.manifest["files"]) == {
        "README.md", "completions.jsonl.gz", "metrics.json", "problems.jsonl", "protocol.json",
        "public_key.pem", "report.csv", "report.html", "report.json", "report.parquet",
    }  # fmt: skip
    stranger = Ed25519PrivateKey.generate().public_key()
    with pytest.raises(InputError, match="signed by another key"):
        bundle.verify(packed, stranger)


def test_any_changed_byte_is_found(packed: Path, tmp_path: Path) -> None:
    data = packed.read_bytes()
    changed = tmp_path / "b.zip"
    places = {*range(0, len(data), max(len(data) // 150, 1)), *range(45), *range(-150, 0)}
    for place in sorted(place % len(data) for place in places):
        broken = bytearray(data)
        broken[place] ^= 1 << (place % 8)
        changed.write_bytes(broken)
        with pytest.raises(InputError, match=r"^b\.zip: "):
            bundle.verify(changed)
    for cut in (data[:-1], data + b"x", b"x" + data, data[: len(data) // 2], b""):
        changed.write_bytes(cut)
        with pytest.raises(InputError):
            bundle.verify(changed)


def repacked(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    with zipfile.ZipFile(source) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, data)
    return target


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda files: files.pop("report.html"), "'report.html' is missing"),
        (lambda files: files.pop("manifest.sig"), "manifest.sig is missing"),
        (lambda files: files.update(extra=b"x"), "extra is not in its manifest"),
        (lambda files: files.update({"../out": b"x"}), "is no name"),
        (lambda files: files.update({"/etc/out": b"x"}), "is no name"),
        (lambda files: files.update({"a\\b": b"x"}), "is no name"),
        (lambda files: files.update({"metrics.json": b"{}"}), "metrics.json was changed"),
        (lambda files: files.update({"manifest.json": b"{}"}), "signature is not the manifest's"),
        (lambda files: files.update({f"f{n}": b"" for n in range(99)}), "more than 64 files"),
    ],
)
def test_what_does_not_belong_is_named(
    packed: Path, tmp_path: Path, change: Any, said: str
) -> None:
    unchanged = repacked(packed, tmp_path / "same.zip", lambda _: None)
    assert bundle.verify(unchanged).manifest == bundle.verify(packed).manifest
    with pytest.raises(InputError, match=re.escape(said)):
        bundle.verify(repacked(packed, tmp_path / "b.zip", change))
    assert not list(tmp_path.parent.glob("out"))


def test_a_bundle_that_would_grow_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b"0" * 10_000_000)
    with pytest.raises(InputError, match="packed in another way"):
        bundle.verify(bomb)


def test_a_stolen_manifest_does_not_carry_another_key(packed: Path, tmp_path: Path) -> None:
    other = Ed25519PrivateKey.generate()

    def swap(files: dict[str, bytes]) -> None:
        files["public_key.pem"] = signing.public_pem(other)

    with pytest.raises(InputError, match="signature is not the manifest's"):
        bundle.verify(repacked(packed, tmp_path / "b.zip", swap))
    with pytest.raises(InputError, match=r"public_key\.pem was changed"):
        bundle.verify(tmp_path / "b.zip", KEY.public_key())


def test_the_documented_commands_verify_and_score_from_the_bundle_alone(
    packed: Path, tmp_path: Path
) -> None:
    (tmp_path / "BUNDLE.zip").write_bytes(packed.read_bytes())
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "bundle")  # verified above
    readme = (tmp_path / "bundle" / "README.md").read_text()
    (tmp_path / "public_key.pem").write_bytes(signing.public_pem(KEY))
    commands = [shlex.split(line) for line in readme.splitlines() if line.startswith("    python")]
    assert [command[3] for command in commands] == ["verify-report", "score"]
    for command in commands:
        done = subprocess.run(
            [sys.executable, *command[1:]], cwd=tmp_path, capture_output=True, text=True,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "again.json").read_bytes())
    first = json.loads((tmp_path / "bundle" / "metrics.json").read_bytes())
    differing = {name for name in first.keys() | again.keys() if first.get(name) != again.get(name)}
    assert differing <= {"run", "run_fingerprint"}


# --- texts that may not be posted


def question(number: int) -> Problem:
    options = tuple(f"{SECRET} {number} {each}" for each in ("w", "x", "y", "z"))
    return Problem(f"q{number}", f"Say {SECRET} {number}", "B", subject="Physics", options=options)


@pytest.mark.usefixtures("without_pdf")
def test_private_texts_leave_no_form_unless_asked(pool: GraderPool, tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "p" / "run", [question(1), question(2)], pool,
        lambda problem, sample: f"<think>{SECRET}</think>" + (
            "Answer: B" if sample else f"\\boxed{{{SECRET}}}"
        ),
        benchmark="gpqa_diamond",
    )  # fmt: skip
    word = Dispute("q1", 0, Outcome.CORRECT, f"it is {SECRET}", "ada", "2026-01-02", Outcome.WRONG)
    for form in ("html", "json", "csv", "parquet", "zip"):
        quiet, open_ = tmp_path / f"{form}-quiet", tmp_path / f"{form}-open"
        quiet.mkdir()
        open_.mkdir()
        assert SECRET not in readable(write(run, form, quiet, disputes=[word]))
        target = write(run, form, open_, private_texts=True, disputes=[word])
        assert SECRET in readable(target)
        if form not in ("csv", "parquet"):
            assert report.NOTICE in " ".join(readable(target).split()), form
            assert report.NOTICE not in readable(quiet / target.name)
    assert "cannot be scored again" not in readable(tmp_path / "zip-open" / "report.zip")
    names = set(bundle.verify(tmp_path / "zip-quiet" / "report.zip").manifest["files"])
    assert not {"completions.jsonl.gz", "problems.jsonl"} & names


def readable(path: Path) -> str:
    """Everything that stands in a report, unpacked; a PDF's text is not looked for."""
    if path.suffix == ".parquet":
        return str(pq.read_table(path).to_pylist())
    if path.suffix != ".zip":
        return path.read_text()
    with zipfile.ZipFile(path) as archive:
        found = []
        for name in archive.namelist():
            data = archive.read(name)
            data = gzip.decompress(data) if name.endswith(".gz") else data
            if name.endswith(".parquet"):
                found.append(str(pq.read_table(io.BytesIO(data)).to_pylist()))
            elif not name.endswith(".pdf"):
                found.append(data.decode())
    return "\n".join(found)


# --- the command line and the key


def test_the_command_refuses_what_it_cannot_make(
    run: LocalRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def said(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["evaluator", *map(str, arguments)])
        code = main()
        return code, capsys.readouterr().err

    code, sentence = said("report", run.folder, "--format", "docx")
    assert code == 2
    assert "'docx' is not one of html, pdf, json, csv, parquet, zip" in sentence
    torn = tmp_path / "d.jsonl"
    torn.write_text('{"claim": "correct"}\n')
    code, sentence = said("report", run.folder, "--output", tmp_path / "r.html", "--disputes", torn)
    assert code == 2
    assert "d.jsonl, line 1 is no dispute" in sentence
    key = tmp_path / "key.pem"
    key.write_bytes(signing.public_pem(KEY))
    key.chmod(0o644)
    arguments = ("report", run.folder, "--output", tmp_path / "r.zip", "--signing-key", key)
    code, sentence = said(*arguments)
    assert code == 2
    assert "chmod 600" in sentence
    key.chmod(0o600)
    code, sentence = said(*arguments)
    assert code == 2
    assert "cannot be used" in sentence
    code, sentence = said("verify-report", tmp_path / "none.zip")
    assert code == 2
    assert "none.zip: cannot be read" in sentence
    assert {path.name for path in tmp_path.iterdir()} == {"d.jsonl", "key.pem"}


def test_a_key_is_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key.pem"
    first = signing.private_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert signing.public_pem(signing.private_key(path)) == signing.public_pem(first)
    assert [each.name for each in path.parent.iterdir()] == ["key.pem"]
