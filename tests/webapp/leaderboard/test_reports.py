"""Reports of the pages: each form, redaction, large ones by a worker's child, the signing key."""

from __future__ import annotations

import csv
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from django.test import Client
from django.urls import reverse

from evaluator import bundle, report, signing
from evaluator.cli import main
from evaluator.records import Outcome, Problem
from tests.webapp.samples import (
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    plain_draw,
)
from webapp.benchmarks.services import install_benchmark
from webapp.core import store
from webapp.leaderboard import desk, reports
from webapp.leaderboard.models import Report
from webapp.runs import files
from webapp.runs.models import Evaluation
from workers import clerk

pytestmark = pytest.mark.usefixtures("quick_reports")
PROBLEMS = arithmetic(9)
SECRET = "what nobody may post"


@pytest.fixture
def found(user: Any) -> Evaluation:
    return make_evaluation(
        user, make_checkpoint(user, "m"), make_benchmark(PROBLEMS), PROBLEMS, samples=4,
        draw=plain_draw(0.5),
    )  # fmt: skip


def get(page: Client, found: Evaluation, form: str, query: str = "") -> bytes:
    response = page.get(reverse(f"leaderboard:report_{form}", args=[found.pk]) + query)
    assert response["content-disposition"] == f'attachment; filename="evaluation-{found.pk}.{form}"'
    return bytes(response.content)


def made(page: Client, found: Evaluation, form: str, **data: str) -> Report:
    page.post(reverse("leaderboard:ask_report", args=[found.pk]), {"format": form, **data})
    job = desk.claim()
    assert job is not None
    assert job.kind == "report"
    desk.do(job)
    return Report.objects.get(pk=job.pk)


@pytest.mark.django_db
def test_each_small_form_holds_every_sample(found: Evaluation, page: Client) -> None:
    rows = json.loads(get(page, found, "json"))["samples"]
    lines = list(csv.DictReader(io.StringIO(get(page, found, "csv").decode())))
    table = pq.read_table(io.BytesIO(get(page, found, "parquet"))).to_pylist()
    assert len(rows) == len(lines) == len(table) == 36
    for row, line, typed in zip(rows, lines, table, strict=True):
        assert typed == {name: row.get(name) for name in typed}
        assert line["outcome"] == row["outcome"]
    right = sum(row["outcome"] == "correct" for row in rows)
    assert found.metrics is not None
    assert right / 36 == pytest.approx(found.metrics["pass@1"]["value"])


@pytest.mark.django_db
def test_a_bundle_is_made_kept_verified_and_scored_again(
    found: Evaluation, page: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = reverse("leaderboard:reports", args=[found.pk])
    assert "not made yet" in page.get(address).content.decode()
    page.post(reverse("leaderboard:ask_report", args=[found.pk]), {"format": "zip"})
    page.post(reverse("leaderboard:ask_report", args=[found.pk]), {"format": "zip"})
    assert Report.objects.count() == 1  # the one that waits is taken for both
    waiting = page.get(reverse("leaderboard:reports_live", args=[found.pk])).content.decode()
    assert "every 2s" in waiting
    job = desk.claim()
    assert job is not None
    desk.do(job)
    row = Report.objects.get()
    ready = page.get(reverse("leaderboard:reports_live", args=[found.pk])).content.decode()
    assert "every 2s" not in ready
    assert row.sha256 in ready
    response = page.get(reverse("leaderboard:download", args=[found.pk, row.pk]))
    target = tmp_path / "b.zip"
    target.write_bytes(b"".join(response.streaming_content))
    pem = page.get(reverse("leaderboard:signing_key") + "?as=pem").content
    told = bundle.verify(target, signing.read_public(pem, "key"))
    assert told.trusted
    assert told.fingerprint in page.get(reverse("leaderboard:signing_key")).content.decode()
    with zipfile.ZipFile(target) as archive:
        archive.extractall(tmp_path / "bundle")
        readme = archive.read("README.md").decode()
    command = next(line for line in readme.splitlines() if " score --" in line).split()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["evaluator", *command[3:], "--jobs", "1"])
    assert main() == 0
    again = json.loads((tmp_path / "again.json").read_bytes())
    assert found.metrics is not None
    for name in ("pass@1", "pass@k", "cons@k", "outcomes", "per_problem", "measurement_hash"):
        if name != "measurement_hash":
            assert again[name] == found.metrics[name], name
    # Making it again replaces the file that was kept.
    path = files.store_path(row.path)
    newer = made(page, found, "zip")
    assert Report.objects.get() == newer
    assert not path.exists()
    assert files.store_path(newer.path).is_file()


@pytest.mark.django_db
def test_a_report_made_on_one_host_is_downloaded_from_another(
    found: Evaluation, page: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket: dict[str, bytes] = {}

    def publish(relative: str) -> None:
        bucket[relative] = files.store_path(relative).read_bytes()

    def fetch(relative: str) -> Path:
        path = tmp_path / "elsewhere"
        path.write_bytes(bucket[relative])
        return path

    monkeypatch.setattr(store, "publish", publish)
    monkeypatch.setattr(store, "remove", bucket.pop)
    row = made(page, found, "zip")
    files.store_path(row.path).unlink()
    monkeypatch.setattr(store, "fetch", fetch)
    response = page.get(reverse("leaderboard:download", args=[found.pk, row.pk]))
    assert b"".join(response.streaming_content) == bucket[row.path]
    assert [name for name in bucket if name.startswith("reports/")] == [row.path]


@pytest.mark.django_db
def test_private_texts_stay_unless_asked_and_then_it_says_so(user: Any, page: Client) -> None:
    options = tuple(f"{SECRET} {each}" for each in ("w", "x", "y", "z"))
    problems = [
        Problem(f"q{number}", f"Say {SECRET} {number}", "B", options=options) for number in range(3)
    ]
    benchmark = install_benchmark("gpqa_diamond", problems, "a test")

    def draw(rng: Any, problem: Any, sample: int) -> Any:
        return f"{SECRET} \\boxed{{B}}", Outcome.WRONG, f"B because {SECRET}", SECRET

    checkpoint = make_checkpoint(user, "m")
    found = make_evaluation(user, checkpoint, benchmark, problems, samples=2, draw=draw)
    shown = page.get(reverse("leaderboard:reports", args=[found.pk])).content.decode()
    assert "left out" in shown
    for form in ("html", "json", "csv", "parquet"):
        assert SECRET.encode() not in get(page, found, form), form
    quiet = files.store_path(made(page, found, "zip").path)
    assert SECRET.encode() not in quiet.read_bytes()
    assert "completions.jsonl.gz" not in bundle.verify(quiet).manifest["files"]
    for form in ("html", "json"):
        asked = get(page, found, form, "?private_texts=yes").decode()
        assert SECRET in asked
        assert report.NOTICE in " ".join(asked.split())
    row = made(page, found, "zip", private_texts="yes")
    told = bundle.verify(files.store_path(row.path)).manifest
    assert told["notice"] == report.NOTICE
    assert "completions.jsonl.gz" in told["files"]
    assert Report.objects.count() == 2  # one of each privacy is kept


@pytest.mark.django_db
def test_what_cannot_be_made_is_a_sentence(found: Evaluation, page: Client) -> None:
    ask = reverse("leaderboard:ask_report", args=[found.pk])
    text = page.post(ask, {"format": "docx"}, follow=True).content.decode()
    assert "format: choose one of pdf, zip" in text
    segment = found.completions.all()[0].segment
    (files.segments_folder(segment.shard.stage) / segment.name).unlink()
    response = page.get(reverse("leaderboard:report_html", args=[found.pk]))
    assert response.status_code == 302
    assert "cannot be read" in page.get(response["location"]).content.decode()
    found.metrics = None
    found.save()
    assert page.get(reverse("leaderboard:reports", args=[found.pk])).status_code == 404
    assert page.post(ask, {"format": "zip"}).status_code == 404


@pytest.mark.django_db(transaction=True)
def test_the_clerks_child_makes_a_pdf_and_a_failure_is_kept(
    found: Evaluation, user: Any, page: Client, settings: Any, monkeypatch: pytest.MonkeyPatch,
    process_environment: dict[str, str],
) -> None:  # fmt: skip
    for name, value in process_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RETORT_FILES", str(settings.MEDIA_ROOT))
    reports.ask_for(user, found, "pdf")
    job = desk.claim()
    assert job is not None
    clerk.carry_out(job)
    row = Report.objects.get()
    assert row.state == Report.State.READY, row.error
    assert files.store_path(row.path).read_bytes().startswith(b"%PDF-")
    segment = found.completions.all()[0].segment
    (files.segments_folder(segment.shard.stage) / segment.name).unlink()
    reports.ask_for(user, found, "zip")
    job = desk.claim()
    assert job is not None
    clerk.carry_out(job)
    failed = Report.objects.get(form="zip")
    assert failed.state == Report.State.FAILED
    assert "cannot be read" in failed.error
    assert not list(files.store_path(f"reports/{found.pk}").glob("*.zip"))
    text = page.get(reverse("leaderboard:reports", args=[found.pk])).content.decode()
    assert "cannot be read" in text
    assert "Make again" in text


@pytest.mark.django_db
def test_a_child_that_takes_too_long_is_ended(
    found: Evaluation, user: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports.ask_for(user, found, "pdf")
    job = desk.claim()
    assert job is not None
    monkeypatch.setattr(sys, "executable", "/bin/sleep")
    real = clerk.subprocess.Popen
    monkeypatch.setattr(clerk.subprocess, "Popen", lambda _, **o: real(["/bin/sleep", "60"], **o))
    clerk.carry_out(job, seconds=0.2)
    assert "took longer than" in Report.objects.get().error
