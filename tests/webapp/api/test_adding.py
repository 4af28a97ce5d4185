"""Benchmarks, prompt sets, contests and populations that administrators add by the API."""

from __future__ import annotations

import gzip
import io
import itertools
import json
from collections.abc import Callable
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from evaluator.benchmarks import arithmetic
from tests.evaluator import programs
from webapp.benchmarks import adding
from webapp.benchmarks.models import Benchmark, Contest, PromptSet, RatingPopulation
from webapp.benchmarks.services import read_prompts
from webapp.core.models import AuditEntry

pytestmark = pytest.mark.django_db

ROWS = [{"id": f"p{n}", "problem": f"{n} + 1?", "answer": str(n + 1)} for n in range(3)]
LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS).encode()
PACKED = gzip.compress(LINES, mtime=0)


@pytest.fixture
def caller(admin: Any, by_token: Callable[..., Client]) -> Client:
    return by_token(admin, scope="admin")


def add(client: Client, where: str, called: str, body: bytes, /, **fields: str) -> Any:
    return client.post(f"/api/v1/{where}", {**fields, "file": SimpleUploadedFile(called, body)})


def parquet() -> bytes:
    target = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), target)
    return target.getvalue()


def csv() -> bytes:
    return ("id,problem,answer\n" + "".join(",".join(row.values()) + "\n" for row in ROWS)).encode()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("p.jsonl", LINES), ("p.jsonl.gz", PACKED), ("p.parquet", parquet()),
        ("P.CSV", csv()),
    ],
    ids=["lines", "packed", "parquet", "csv"],
)  # fmt: skip
def test_every_kind_of_file_gives_the_same_version(caller: Client, name: str, body: bytes) -> None:
    first = add(caller, "benchmarks", "../first.jsonl", LINES, name="custom")
    assert first.status_code == 201, first.content
    assert first.json()["problem_count"] == 3
    assert first.json()["source"] == "first.jsonl"
    again = add(caller, "benchmarks", name, body, name="custom")
    assert again.json()["id"] == first.json()["id"]
    assert Benchmark.objects.get().problems.count() == 3
    assert AuditEntry.objects.filter(action="benchmark.install").count() == 2


def test_a_prompt_set_is_read_as_the_benchmark_it_is_like(caller: Client) -> None:
    answer = add(caller, "prompt-sets", "p.jsonl", LINES, name="sums", like="math_500")
    assert answer.status_code == 201, answer.content
    found = PromptSet.objects.get(pk=answer.json()["id"])
    assert [each.answer for each in read_prompts(found)] == ["1", "2", "3"]


def test_contests_and_populations_rate(caller: Client) -> None:
    body = json.dumps(programs.bundle("9001")).encode()
    answer = add(caller, "benchmarks/contests", "b.json", body, kind="contest")
    assert answer.status_code == 201, answer.content
    assert [each["contest_id"] for each in answer.json()["contests"]] == ["9001"]
    people = add(
        caller, "benchmarks/contests", "people.json.gz", gzip.compress(b"[1500, 1600]"),
        kind="population",
    )  # fmt: skip
    assert people.json()["population"]["name"] == "people"
    assert caller.get("/api/v1/benchmarks/populations").json()["items"][0]["size"] == 2
    assert set(AuditEntry.objects.values_list("action", flat=True)) >= {
        "contest.install", "population.install",
    }  # fmt: skip


def _named(**head: str) -> bytes:
    whole = programs.bundle("9001")
    return json.dumps(whole | {"contest": whole["contest"] | head}).encode()


@pytest.mark.parametrize(
    ("where", "name", "body", "fields", "field"),
    [
        ("benchmarks", "p.jsonl", LINES, {"name": "nobody"}, "name"),
        ("benchmarks", "p.exe", LINES, {"name": "custom"}, "file"),
        ("benchmarks", "p.jsonl", b"", {"name": "custom"}, "file"),
        ("benchmarks", "p.jsonl", b"nonsense", {"name": "custom"}, "file"),
        ("benchmarks", "p.jsonl.gz", LINES, {"name": "custom"}, "file"),
        ("benchmarks", "p.jsonl.gz", PACKED[:-9], {"name": "custom"}, "file"),
        ("benchmarks", "p.parquet", LINES, {"name": "custom"}, "file"),
        ("benchmarks", "p.jsonl", LINES, {"name": "aime_2024"}, "file"),  # not its problems
        ("benchmarks", "p.jsonl", LINES.replace(b'"p0"', b'"p\\u0000"'), {"name": "custom"},
         "benchmark"),
        ("benchmarks", "p.jsonl", LINES.replace(b'"answer"', b'"subject": "\\u0000", "answer"'),
         {"name": "custom"}, "benchmark"),
        ("prompt-sets", "p.jsonl", LINES, {"name": "a b"}, "name"),
        ("prompt-sets", "p.jsonl", LINES, {"name": "a", "like": "nobody"}, "like"),
        ("benchmarks/contests", "b.json", b"[]", {"kind": "contest"}, "file"),
        ("benchmarks/contests", "b.exe", b"{}", {"kind": "contest"}, "file"),
        ("benchmarks/contests", "b.json", _named(id="9" * 61), {"kind": "contest"}, "file"),
        ("benchmarks/contests", "b.json", _named(name="\x00"), {"kind": "contest"}, "file"),
        ("benchmarks/contests", "b.json", b'["x"]', {"kind": "population"}, "file"),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_what_cannot_be_used_leaves_nothing(
    caller: Client, where: str, name: str, body: bytes, fields: dict[str, str], field: str
) -> None:
    answer = add(caller, where, name, body, **fields)
    assert answer.status_code == 422, answer.content
    assert answer.json()["field"] == field
    assert answer.json()["sentence"].endswith(".")
    assert "/tmp" not in answer.json()["sentence"]
    for kind in (Benchmark, PromptSet, Contest, RatingPopulation):
        assert not kind.objects.exists()
    assert not AuditEntry.objects.filter(action__endswith=".install").exists()


def test_a_packed_bomb_ends_at_the_limit(caller: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adding, "MOST_BYTES", 1 << 20)
    bomb = gzip.compress(b"\n" * (4 << 20))
    wide = io.BytesIO()
    rows = [{"problem": "x" * 50_000, "answer": "1", "id": str(n)} for n in range(100)]
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows), wide, compression="zstd", use_dictionary=False
    )
    for name, body in (("b.jsonl.gz", bomb), ("b.parquet", wide.getvalue())):
        assert len(body) < 1 << 20
        answer = add(caller, "benchmarks", name, body, name="custom")
        assert "more than 1 MiB" in answer.json()["sentence"]


def test_a_generated_benchmark_is_taken_from_its_file(caller: Client) -> None:
    problems = arithmetic.generate(5, seed=3)
    lines = "".join(f"{json.dumps(each.to_json())}\n" for each in problems).encode()
    answer = add(caller, "benchmarks", "a.jsonl", lines, name="arithmetic")
    assert answer.status_code == 201, answer.content
