"""The lineage as a graph: every ancestor, every result, nothing drawn over anything else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from tests.distiller.samples import recipe
from tests.webapp import samples
from tests.webapp.models import model_files, write
from webapp.benchmarks.models import PromptSet
from webapp.checkpoints import ancestry, drawn, services
from webapp.checkpoints.ancestry import Graph, Node, graph_of_checkpoint, graph_of_run
from webapp.checkpoints.models import Checkpoint, Upload
from webapp.projects.access import ELSEWHERE, first_project
from webapp.runs.models import Run

SVG = "{http://www.w3.org/2000/svg}"


def distilled(user: Any, name: str, teacher: Checkpoint, base: Checkpoint) -> Checkpoint:
    prompts, _ = PromptSet.objects.get_or_create(
        name="sums", content_hash="e" * 64, path="prompts/e.jsonl", prompt_count=300
    )
    run = samples.make_run(user, f"make {name}", Run.Kind.DISTILLATION,
                           config=recipe("base").model_dump(mode="json"))  # fmt: skip
    config = {"teacher": teacher.pk, "base": base.pk, "prompt_set": prompts.pk}
    samples.make_stage(run, 0, "generate", "Draw", config=config, done=600)
    samples.make_stage(run, 1, "filter", "Filter", result={"funnel": samples.FUNNEL})
    return samples.make_checkpoint(user, name, produced_by=run, parent=base)


def edges(graph: Graph) -> set[tuple[str, str]]:
    return {
        (f"{graph.nodes[a].role} {graph.nodes[a].name}", f"{graph.nodes[b].role} "
         f"{graph.nodes[b].name}")
        for a, b in graph.edges
    }  # fmt: skip


@pytest.mark.django_db
def test_the_whole_chain_from_prompts_to_report(user: Any) -> None:
    teacher, base = (samples.make_checkpoint(user, name) for name in ("teacher", "base"))
    student = distilled(user, "student", teacher, base)
    problems = samples.arithmetic(3)
    samples.make_evaluation(user, student, samples.make_benchmark(problems), problems, samples=2)
    found = edges(graph_of_checkpoint(student, samples.everything()))
    title = "Arithmetic (toy)"
    scores = {edge for edge in found if "score" in edge[0] or "score" in edge[1]}
    assert found - scores == {
        ("prompts sums", "traces 600 traces"),
        ("checkpoint teacher", "traces 600 traces"),
        ("traces 600 traces", "corpus 7 examples"),
        ("corpus 7 examples", "student student"),
        ("checkpoint base", "student student"),
    }, title
    assert {b.partition(" ")[0] for _, b in scores} == {"score", "report"}


@pytest.mark.django_db
def test_grandchildren_show_their_grandparents_once(user: Any) -> None:
    teacher, base = (samples.make_checkpoint(user, name) for name in ("teacher", "base"))
    child = distilled(user, "child", teacher, base)
    grandchild = distilled(user, "grandchild", child, base)
    graph = graph_of_checkpoint(grandchild, samples.everything())
    names = [node.name for node in graph.nodes.values()]
    for name in ("teacher", "base", "child", "grandchild", "sums"):
        assert names.count(name) == 1
    assert ("student child", "traces 600 traces") in edges(graph)
    assert len([node for node in graph.nodes.values() if node.role == "corpus"]) == 2
    down = graph_of_checkpoint(teacher, samples.everything())
    assert edges(down) == {("checkpoint teacher", "student child")}
    assert ("checkpoint base", "student child") in edges(
        graph_of_checkpoint(base, samples.everything())
    )


@pytest.mark.django_db
def test_a_merge_has_two_parents_and_says_which_is_lost(
    user: Any, settings: Any, tmp_path: Path
) -> None:
    settings.MEDIA_ROOT = tmp_path / "files"
    one = samples.make_checkpoint(user, "one", content_hash="a" * 64)
    note = {"parents": [{"name": "one", "content_hash": "a" * 64},
                        {"name": "two", "content_hash": "b" * 64}]}  # fmt: skip
    files = model_files() | {"merge.json": json.dumps(note).encode()}
    merged = services.register_folder(
        owner=user, name="merged", folder=write(tmp_path / "merged", files)
    )
    graph = graph_of_checkpoint(merged, samples.everything())
    assert edges(graph) == {
        ("checkpoint one", "checkpoint merged"), ("parent two", "checkpoint merged"),
    }  # fmt: skip
    (lost,) = (node for node in graph.nodes.values() if node.missing)
    assert (lost.name, lost.href, lost.note) == ("two", "", "not here")
    assert one.get_absolute_url() in drawn.draw(graph)


@pytest.mark.django_db
def test_a_parents_name_that_no_page_can_hold_is_mended(
    user: Any, page: Client, settings: Any, tmp_path: Path
) -> None:
    settings.MEDIA_ROOT = tmp_path / "files"
    note = {"parents": [{"name": "x\ud800\0", "content_hash": "b" * 64}]}
    write(tmp_path / "files/checkpoints/x", {"merge.json": json.dumps(note).encode()})
    odd = samples.make_checkpoint(user, "odd")
    child = samples.make_checkpoint(user, "child", parent=odd)
    Checkpoint.objects.filter(pk=odd.pk).update(path="checkpoints/x")
    for row in (odd, child):
        answer = page.get(row.get_absolute_url())
        assert answer.status_code == 200
        assert "x?\N{REPLACEMENT CHARACTER}" in answer.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "note", [b"", b"[" * 10**5, b'{"parents": 1}', b'{"parents": [{}]}', b'{"parents": [[1]]}',
             b'{"x": "' + b"y" * 2_000_000 + b'"}', b"\xff\xfe",
             b'{"parents": [{"name": "\\ud800", "content_hash": "\\u0000"}]}']
)  # fmt: skip
def test_a_file_that_only_calls_itself_a_merge_is_none(
    user: Any, settings: Any, tmp_path: Path, note: bytes
) -> None:
    settings.MEDIA_ROOT = tmp_path / "files"
    path = write(tmp_path / "files" / "checkpoints" / "x", {"merge.json": note})
    checkpoint = samples.make_checkpoint(user, "odd")
    Checkpoint.objects.filter(pk=checkpoint.pk).update(path="checkpoints/x")
    checkpoint.refresh_from_db()
    assert path.exists()
    assert len(graph_of_checkpoint(checkpoint, samples.everything()).nodes) == 1


@pytest.mark.django_db
def test_what_was_deleted_is_said_to_be(user: Any, page: Client) -> None:
    teacher, base = (samples.make_checkpoint(user, name) for name in ("teacher", "a base"))
    student = distilled(user, "student", teacher, base)
    teacher.delete()
    PromptSet.objects.all().delete()
    graph = graph_of_checkpoint(Checkpoint.objects.get(pk=student.pk), samples.everything())
    lost = {node.role: node for node in graph.nodes.values() if node.missing}
    assert set(lost) == {"teacher", "prompts"}
    assert all(node.note == "deleted here" and not node.href for node in lost.values())
    text = page.get(student.get_absolute_url()).content.decode()
    assert 'class="node missing"' in text


@pytest.mark.django_db
def test_where_it_was_fetched_from_is_shown(user: Any) -> None:
    checkpoint = samples.make_checkpoint(user, "fetched")
    Upload.objects.create(
        project=first_project(),
        owner=user, name="fetched", source="hub", origin="org/x", revision="c0ffee" * 6,
        state="registered", checkpoint=checkpoint,
    )  # fmt: skip
    assert edges(graph_of_checkpoint(checkpoint, samples.everything())) == {
        ("the hub org/x", "checkpoint fetched")
    }


@pytest.mark.django_db
def test_a_run_shows_what_it_used_and_made(user: Any, page: Client) -> None:
    teacher, base = (samples.make_checkpoint(user, name) for name in ("teacher", "base"))
    student = distilled(user, "student", teacher, base)
    run = student.produced_by
    assert run is not None
    assert ("corpus 7 examples", "student student") in edges(
        graph_of_run(run, samples.everything())
    )
    student.delete()
    assert ("corpus 7 examples", "student not there") in edges(
        graph_of_run(run, samples.everything())
    )
    address = reverse("checkpoints:run-lineage", args=[run.pk])
    assert address in page.get(run.get_absolute_url()).content.decode()
    whole = page.get(address).content.decode()
    part = page.get(address, headers={"HX-Request": "true"}).content.decode()
    assert "<html" in whole
    assert "<html" not in part
    assert 'id="lineage"' in part


@pytest.mark.django_db
def test_a_long_chain_is_cut_and_said_so_in_few_queries(
    user: Any, page: Client, django_assert_max_num_queries: Any
) -> None:
    last = samples.make_checkpoint(user, "first")
    for number in range(40):
        last = distilled(user, f"c{number}", last, last)
    graph = graph_of_checkpoint(last, samples.everything())
    assert len(graph.nodes) <= ancestry.MOST_NODES + 6
    assert any("earlier ancestors" in node.name for node in graph.nodes.values())
    with django_assert_max_num_queries(200):
        assert page.get(last.get_absolute_url()).status_code == 200


# --- drawing


def tree(graph: Graph) -> ElementTree.Element:
    text = str(drawn.draw(graph)).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return ElementTree.fromstring(text)


def boxes(graph: Graph) -> Iterator[tuple[float, float]]:
    for rect in tree(graph).iter(f"{SVG}rect"):
        yield float(rect.attrib["x"]), float(rect.attrib["y"])


names = st.text(min_size=1, max_size=60).filter(
    lambda text: not re.search("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]", text)
)


@given(
    count=st.integers(2, 14),
    pairs=st.lists(st.tuples(st.integers(0, 13), st.integers(0, 13)), max_size=40),
    label=names,
)
def test_any_graph_is_drawn_apart_and_from_left_to_right(
    count: int, pairs: list[tuple[int, int]], label: str
) -> None:
    graph = Graph()
    for number in range(count):
        graph.add(Node(f"n{number}", "role", label, href="/x/", note=label))
    for a, b in pairs:
        if a < b < count:
            graph.link(f"n{a}", f"n{b}")
    column = drawn.columns(graph)
    assert all(column[a] < column[b] for a, b in graph.edges)
    assert min(column.values()) >= 0
    found = list(boxes(graph))
    assert len(found) == len(set(found)) == count
    root = tree(graph)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert all(x + drawn.WIDTH <= width and y + drawn.HEIGHT <= height for x, y in found)
    assert {title.text for title in root.iter(f"{SVG}title")} == {f"role: {label} ({label})"}


def test_a_circle_that_a_file_claims_is_drawn_all_the_same() -> None:
    graph = Graph()
    for key in "abc":
        graph.add(Node(key, "role", key))
    for pair in ("ab", "bc", "ca"):
        graph.link(pair[0], pair[1])
    assert len(list(boxes(graph))) == 3


def test_hostile_names_are_text_and_long_ones_are_cut_but_told() -> None:
    graph = Graph()
    graph.link(graph.add(Node("a", "r", samples.HOSTILE)), graph.add(Node("b", "r", "x" * 200)))
    text = str(drawn.draw(graph))
    assert "<script" not in text
    assert "onerror=" not in re.sub("&[a-z#0-9]+;", "", text) or "<img" not in text
    root = tree(graph)
    shown = [each.text or "" for each in root.iter(f"{SVG}text") if each.get("class") == "name"]
    assert max(map(len, shown)) <= 21
    assert any("x" * 200 in (title.text or "") for title in root.iter(f"{SVG}title"))


@pytest.mark.parametrize(
    ("name", "note", "lines"),
    [
        (ELSEWHERE, "", ["in a project that you", "are not in"]),
        ("short", "", ["short", ""]),
        ("x" * 30, "", ["x" * 20 + "…", ""]),
        ("a long name with a note", "note", ["a long name with a n…", "note"]),
    ],
)
def test_a_long_name_goes_on_where_there_is_no_note(name: str, note: str, lines: list[str]) -> None:
    graph = Graph()
    for key in ("a", "b"):
        graph.add(Node(key, "student", name, note=note))
    drawing = ElementTree.fromstring(
        drawn.draw(graph).replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ')
    )
    texts = [each.text or "" for each in drawing.iter(f"{SVG}text")]
    assert texts == ["student", *lines] * 2
