"""The leaderboard: any columns, ranks with ties, filters, published figures, CSV, few queries."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.http import QueryDict
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from evaluator.protocol import PRESETS
from evaluator.records import Outcome
from tests.webapp.samples import (
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    make_run,
    plain_draw,
    text_of,
)
from webapp.checkpoints.models import Checkpoint
from webapp.leaderboard import board, choice, columns, published, queries, scores
from webapp.leaderboard.memo import Memo
from webapp.projects.access import first_project
from webapp.runs.models import Evaluation, Run

pytestmark = pytest.mark.django_db
PROBLEMS = arithmetic(40)


def built(user: Any, **query: Any) -> board.Board:
    return board.build(user, choice.read(QueryDict(urlencode(query, doseq=True))))


def ours(user: Any, **query: Any) -> list[board.Row]:
    return [row for row in built(user, **query).rows if not row.is_published]


# --- ranks


def ranks(user: Any) -> dict[str, int | None]:
    return {row.name: row.rank for row in ours(user, benchmark="arithmetic")}


def test_equal_models_share_a_rank_and_a_better_one_stands_above(user: Any) -> None:
    benchmark = make_benchmark(PROBLEMS)
    for seed, (name, ability) in enumerate({"best": 0.95, "same": 0.4, "as-good": 0.4}.items()):
        checkpoint = make_checkpoint(user, name)
        make_evaluation(
            user, checkpoint, benchmark, PROBLEMS, samples=8, seed=seed, draw=plain_draw(ability)
        )
    assert ranks(user) == {"best": 1, "same": 2, "as-good": 2}
    filtered = ours(user, benchmark="arithmetic", sort="name", published="no", family="Qwen2")
    assert {row.name: row.rank for row in filtered} == ranks(user), (
        "filters leave ranks as they are"
    )


def test_incomplete_and_otherwise_measured_rows_have_no_rank(user: Any) -> None:
    def broken(rng: Any, problem: Any, sample: int) -> Any:
        return "", Outcome.ENGINE_ERROR, None, ""

    benchmark = make_benchmark(PROBLEMS)
    for name in ("a", "b"):
        make_evaluation(user, make_checkpoint(user, name), benchmark, PROBLEMS)
    make_evaluation(user, make_checkpoint(user, "broken"), benchmark, PROBLEMS, draw=broken)
    make_evaluation(
        user, make_checkpoint(user, "other"), benchmark, PROBLEMS, protocol=PRESETS["r1"]
    )
    assert ranks(user) == {"a": 1, "b": 1, "broken": None, "other": None}


# --- what does not compare


def test_a_score_measured_otherwise_says_in_what_and_can_be_left_out(
    user: Any, page: Client
) -> None:
    benchmark = make_benchmark(PROBLEMS)
    for name in ("a", "b"):
        make_evaluation(user, make_checkpoint(user, name), benchmark, PROBLEMS)
    quick = PRESETS["quick"]
    other = quick.model_copy(
        update={
            "sampling": quick.sampling.model_copy(update={"temperature": 0.0, "max_tokens": 7}),
            "thinking": quick.thinking.model_copy(update={"kind": "none"}),
        }
    )
    make_evaluation(user, make_checkpoint(user, "other"), benchmark, PROBLEMS, protocol=other)
    made = built(user, benchmark="arithmetic")
    rows = {row.name: row.cells[0] for row in board.with_differences(made, made.rows)}
    assert rows["a"].comparable
    assert rows["a"].differs == ()
    assert rows["other"].differs == (
        "sampling.max_tokens", "sampling.temperature", "thinking.kind",
    )  # fmt: skip
    assert "other measurement" in text_of(page.get("/?benchmark=arithmetic"))
    text = text_of(page.get("/?benchmark=arithmetic&same=1"))
    assert "other measurement" not in text
    assert [row.name for row in ours(user, benchmark="arithmetic", same="1", sort="name")] == [
        "a",
        "b",
    ]


def test_a_checkpoint_has_a_row_for_each_way_it_was_measured(user: Any) -> None:
    benchmark = make_benchmark(PROBLEMS)
    both = make_checkpoint(user, "both")
    for checkpoint in (both, make_checkpoint(user, "usual")):
        make_evaluation(user, checkpoint, benchmark, PROBLEMS)
    make_evaluation(user, both, benchmark, PROBLEMS, protocol=PRESETS["greedy"], samples=1)
    rows = [row for row in ours(user, benchmark="arithmetic") if row.name == "both"]
    assert sorted(row.cells[0].comparable for row in rows) == [False, True]


def test_imported_completions_are_marked(user: Any, page: Client) -> None:
    benchmark = make_benchmark(PROBLEMS)
    drawn = make_evaluation(user, make_checkpoint(user, "drawn"), benchmark, PROBLEMS)
    taken = make_evaluation(user, make_checkpoint(user, "taken"), benchmark, PROBLEMS)
    Evaluation.objects.filter(pk=taken.pk).update(engine={"name": "replay", "completions": "ab"})
    assert text_of(page.get("/")).count("imported completions") == 1
    for found, marked in ((drawn, False), (taken, True)):
        assert ("imported completions" in text_of(page.get(found.get_absolute_url()))) == marked
    (row,) = [
        row
        for row in ours(
            user,
        )
        if row.name == "taken"
    ]
    assert [cell.measured.is_imported for cell in row.cells if cell.measured][:1] == [True]
    lines = list(csv.DictReader(io.StringIO(text_of(page.get("/leaderboard.csv")))))
    made = {
        line["model"]: line[key] for line in lines for key in line if key.endswith(": completions")
    }
    assert made == {"drawn": "drawn here", "taken": "imported"}


def test_only_the_newest_figure_of_a_checkpoint_counts(user: Any) -> None:
    benchmark = make_benchmark(PROBLEMS)
    checkpoint = make_checkpoint(user, "m")
    make_evaluation(user, checkpoint, benchmark, PROBLEMS, draw=plain_draw(0.1))
    newest = make_evaluation(user, checkpoint, benchmark, PROBLEMS, draw=plain_draw(0.9))
    assert [row.tick for row in ours(user, benchmark="arithmetic")] == [newest.pk]


# --- columns


def test_any_metric_of_any_benchmark_can_be_a_column(user: Any, page: Client) -> None:
    first, second = make_benchmark(PROBLEMS), make_benchmark(PROBLEMS[:9], "custom", "Mine")
    checkpoint = make_checkpoint(user, "m")
    one = make_evaluation(user, checkpoint, first, PROBLEMS, samples=4)
    make_evaluation(user, checkpoint, second, PROBLEMS[:9], samples=2)
    keys = [
        "custom:pass@1", "arithmetic:cons@4", "arithmetic:cons@n", "arithmetic:pass@2",
        "arithmetic:tokens", "arithmetic:truncated", "arithmetic:failed", "custom:cons@64", "dtype",
        "size",
    ]  # fmt: skip
    (row,) = ours(user, c=keys, published="no")
    assert [cell.column.key for cell in row.cells] == keys
    assert one.metrics is not None
    values = {cell.column.key: cell.value for cell in row.cells}
    assert values["arithmetic:cons@4"] == values["arithmetic:cons@n"] == one.metrics["cons@k"]["4"]
    assert values["arithmetic:pass@2"] == one.metrics["pass@k"]["2"]
    assert values["arithmetic:tokens"] == one.metrics["tokens"]["mean"]
    truncated = one.completions.filter(outcome="truncated").count()
    assert values["arithmetic:truncated"] == truncated / one.completions.count() > 0
    assert values["arithmetic:failed"] == 0
    assert values["custom:cons@64"] is None, "undefined is blank, never 0"
    assert [cell.text for cell in row.cells[-2:]] == ["float32", "1.54B"]
    text = text_of(page.get("/?" + urlencode({"c": keys, "published": "no"}, doseq=True)))
    assert f"{100 * one.metrics['cons@k']['4']:.1f}" in text


@given(st.text(max_size=30))
def test_a_key_is_a_column_or_nothing(key: str) -> None:
    found = columns.parse(key, {})
    assert found is None or found.key == key


def test_the_first_page_shows_scores_of_what_was_measured(user: Any, page: Client) -> None:
    assert "79.8" in text_of(page.get("/")), "published ones where nothing was measured"
    for name in ("arithmetic", "custom"):
        benchmark = make_benchmark(PROBLEMS, name, name)
        make_evaluation(user, make_checkpoint(user, f"m-{name}"), benchmark, PROBLEMS)
    keys = [column.key for column in built(user).columns]
    assert keys == ["arithmetic:pass@1", "custom:pass@1"]
    assert len(ours(user)) == 2


# --- order and filters


def test_rows_can_be_sorted_by_any_column_both_ways(user: Any) -> None:
    benchmark = make_benchmark(PROBLEMS)
    for i, ability in enumerate((0.5, 0.9, 0.1)):
        make_evaluation(
            user, make_checkpoint(user, f"m{i}"), benchmark, PROBLEMS, draw=plain_draw(ability),
            seed=i,
        )  # fmt: skip
    for key in ("arithmetic:pass@1", "arithmetic:cons@n", "arithmetic:truncated"):
        down = [row.cell(key).order for row in ours(user, benchmark="arithmetic", sort=key)]  # type: ignore[union-attr]
        up = [row.cell(key).order for row in ours(user, benchmark="arithmetic", sort=f"-{key}")]  # type: ignore[union-attr]
        assert down == sorted(down, reverse=True)
        assert up == sorted(up)
    names = [row.name for row in ours(user, benchmark="arithmetic", sort="name")]
    assert names == ["m0", "m1", "m2"]
    newest = [row.name for row in ours(user, benchmark="arithmetic", sort="newest")]
    assert newest == ["m2", "m1", "m0"]
    for name, dtype in (("m0", "b"), ("m1", ""), ("m2", "a")):
        Checkpoint.objects.filter(name=name).update(dtype=dtype)
    Evaluation.objects.update(engine={})
    for sort, wanted in (("dtype", ["m2", "m0", "m1"]), ("-dtype", ["m0", "m2", "m1"])):
        assert [
            row.name for row in ours(user, c=["arithmetic:pass@1", "dtype"], sort=sort)
        ] == wanted


def delete(found: Evaluation) -> None:
    found.delete()


def ungrade(found: Evaluation) -> None:
    Evaluation.objects.filter(pk=found.pk).update(metrics=None, pass_at_1=None)


@pytest.mark.parametrize("end", [delete, ungrade])
def test_what_goes_while_a_page_is_made_is_left_out(
    user: Any, end: Callable[[Evaluation], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = make_benchmark(PROBLEMS)
    made = {
        name: make_evaluation(user, make_checkpoint(user, name), benchmark, PROBLEMS, seed=seed)
        for seed, name in enumerate(("stays", "too", "goes"))
    }
    read = scores.current()
    monkeypatch.setattr(scores, "current", lambda: read)
    end(made["goes"])
    for sort in ("arithmetic:pass@1", "arithmetic:cons@n", "dtype"):
        found = built(user, published="no", sort=sort, c=["arithmetic:pass@1", sort])
        assert {row.name for row in found.rows} == {"stays", "too"}
        assert found.ranks.keys() == {made["stays"].pk, made["too"].pk}


@pytest.fixture
def family(user: Any, admin: Any) -> dict[str, Evaluation]:
    """A base, its student and another's Llama."""
    benchmark = make_benchmark(PROBLEMS)
    run = make_run(user, "d", Run.Kind.DISTILLATION, config={"teacher": "R1"})
    base = make_checkpoint(user, "base", tags=["maths"])
    student = make_checkpoint(user, "student", parent=base, produced_by=run)
    other = make_checkpoint(
        admin, "other", architecture="LlamaForCausalLM", parameters=8_000_000_000
    )
    make_checkpoint(user, "archived", archived_at=timezone.now())
    return {
        each.name: make_evaluation(user, each, benchmark, PROBLEMS, samples=2)
        for each in (base, student, other)
    }


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"family": "Llama"}, ["other"]),
        ({"size": "small"}, ["base", "student"]),
        ({"size": "medium"}, ["other"]),
        ({"teacher": "R1"}, ["student"]),
        ({"owner": "root"}, ["other"]),
        ({"tag": "maths"}, ["base"]),
        ({"kind": "student"}, ["student"]),
        ({"kind": "base"}, ["base"]),
        ({"published": "only"}, []),
        ({"since": "2000-01-01"}, ["base", "other", "student"]),
        ({"until": "2000-01-01"}, []),
        ({"family": "Qwen2", "size": "medium"}, []),
    ],
)
def test_filters_keep_what_they_say(
    user: Any, family: dict[str, Evaluation], query: dict[str, str], names: list[str]
) -> None:
    assert [row.name for row in ours(user, benchmark="arithmetic", sort="name", **query)] == names


def test_dates_are_those_of_the_measurement(user: Any, family: dict[str, Evaluation]) -> None:
    Evaluation.objects.filter(pk=family["base"].pk).update(
        created_at=timezone.now() - timedelta(days=9)
    )
    week = (timezone.now() - timedelta(days=7)).date().isoformat()
    assert [r.name for r in ours(user, benchmark="arithmetic", until=week)] == ["base"]
    assert "base" not in [r.name for r in ours(user, benchmark="arithmetic", since=week)]


def test_filters_that_cannot_be_read_are_named(page: Client, family: Any) -> None:
    text = text_of(page.get("/?size=vast&since=yesterday&c=nonsense&sort=x&page=99"))
    assert "size: “vast” is none of tiny, small" in text
    assert "since: “yesterday” is no date" in text
    nothing = text_of(page.get("/?family=Mamba"))
    assert "No score is left by these filters." in nothing
    assert nothing.split('class="empty"')[1].count('class="button') == 2


def test_archived_checkpoints_are_left_out(user: Any, family: dict[str, Evaluation]) -> None:
    checkpoint = family["base"].checkpoint
    assert checkpoint is not None
    checkpoint.archived_at = timezone.now()
    checkpoint.save()
    assert "base" not in [row.name for row in ours(user, benchmark="arithmetic")]


QUERIES = st.lists(
    st.tuples(
        st.sampled_from(["c", "sort", "family", "tag", "size", "kind", "since", "same", "page"]),
        st.text(max_size=12) | st.sampled_from(["aime_2024:pass@0", "-dtype", "2026-02-30"]),
    ),
    max_size=6,
)  # fmt: skip


@given(QUERIES)
def test_any_address_is_a_choice(query: list[tuple[str, str]]) -> None:
    found = choice.read(QueryDict(urlencode(query, errors="replace")))
    assert len(columns.chosen(found.keys, {})) <= columns.MOST
    assert all(sentence.endswith(".") for sentence in found.said)


@pytest.mark.parametrize(
    "query",
    ["c=%00&tag=%00&sort=%00", "benchmark=%00", "c=aime_2024:pass@99999", "page=-1",
     "c=" + ",".join(f"aime_2024:pass@{k}" for k in range(1, 90)),
     "since=0001-01-01&until=9999-12-31"],
)  # fmt: skip
def test_hostile_addresses_are_answered(page: Client, family: Any, query: str) -> None:
    assert page.get(f"/?{query}").status_code == 200
    assert page.get(f"/leaderboard.csv?{query}").status_code == 200


def test_the_order_outlives_a_change_of_filters(page: Client, family: Any) -> None:
    text = text_of(page.get("/?benchmark=arithmetic&sort=-name"))
    assert '<input type="hidden" name="sort" value="-name">' in text


# --- published figures


def test_every_published_figure_names_its_source(user: Any) -> None:
    rows = built(user, c=["aime_2024:pass@1", "aime_2024:cons@64", "codeforces:rating@1"]).rows
    figures = [f for row in rows for cell in row.cells for f in cell.figures]
    assert len(figures) > 30
    assert all(figure.source.title and figure.source.url for figure in figures)
    (r1,) = [row for row in rows if row.name == "DeepSeek-R1"]
    assert [f.value for f in r1.cells[0].figures] == [0.798]
    assert [f.value for f in r1.cells[2].figures] == [2029]


def test_sources_that_contradict_each_other_are_both_shown(page: Client) -> None:
    text = text_of(page.get("/?benchmark=aime_2024"))
    row = text.split("QwQ-32B-Preview")[1].split("</tr>")[0]
    assert "50.0" in row
    assert "44.0 says" in row
    assert row.count('href="#source-') >= 2
    assert "repository README" in text


def test_z_is_the_distance_from_each_published_figure(user: Any, page: Client) -> None:
    benchmark = make_benchmark(PROBLEMS, "aime_2024", "AIME 2024")
    checkpoint = make_checkpoint(user, "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B")
    found = make_evaluation(
        user, checkpoint, benchmark, PROBLEMS, samples=8, protocol=PRESETS["r1"]
    )
    assert found.metrics is not None
    first = found.metrics["pass@1"]
    (row,) = ours(user, benchmark="aime_2024")
    cell = row.cells[0]
    assert [figure.value for _, figure in cell.z] == [0.289, 0.307]
    for z, figure in cell.z:
        by_hand = (first["value"] - figure.value) / (math.sqrt(2) * first["se_rerun"])
        assert z == pytest.approx(by_hand)
    assert f"z = {cell.z[0][0]:+.1f} from 28.9" in text_of(page.get("/?benchmark=aime_2024"))
    assert "difference / (√2 · re-run error)" in text_of(page.get("/?benchmark=aime_2024"))
    assert published.of("some-other-model") is None


@pytest.mark.parametrize("change", [{"temperature": 0.0}, {"top_p": 0.9}, {"max_tokens": 4096}])
def test_what_was_drawn_otherwise_than_published_has_no_z(
    user: Any, change: dict[str, Any]
) -> None:
    benchmark = make_benchmark(PROBLEMS, "aime_2024", "AIME 2024")
    checkpoint = make_checkpoint(user, "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B")
    r1 = PRESETS["r1"]
    otherwise = r1.model_copy(update={"sampling": r1.sampling.model_copy(update=change)})
    make_evaluation(user, checkpoint, benchmark, PROBLEMS, samples=8, protocol=otherwise)
    (row,) = ours(user, benchmark="aime_2024")
    assert row.cells[0].value is not None
    assert not row.cells[0].z


# --- CSV


def test_csv_holds_every_row_and_no_formula(user: Any, page: Client) -> None:
    benchmark = make_benchmark(PROBLEMS)
    checkpoint = make_checkpoint(user, "=cmd|' /C calc'!A0")
    found = make_evaluation(user, checkpoint, benchmark, PROBLEMS)
    response = page.get("/leaderboard.csv?benchmark=arithmetic")
    assert "attachment" in response["content-disposition"]
    (row,) = csv.DictReader(io.StringIO(text_of(response), newline=""))
    assert row["model"] == "'=cmd|' /C calc'!A0"
    assert found.metrics is not None
    name = "Arithmetic pass@1[avg-of-n]"
    assert float(row[name]) == pytest.approx(100 * found.metrics["pass@1"]["value"])
    assert row[f"{name}: measurement hash"] == found.measurement_hash
    text = text_of(page.get("/leaderboard.csv?benchmark=aime_2024"))
    assert "44: DeepSeek-R1, repository README" in text


# --- size


def copies(found: Evaluation, count: int) -> None:
    """As many further checkpoints with the same scores."""
    made = Checkpoint.objects.bulk_create(
        Checkpoint(
            project=first_project(), name=f"model {i} of {count}", owner=found.run.owner, path="x"
        )
        for i in range(count)
    )
    fields = {
        name: getattr(found, name)
        for name in ("run", "benchmark", "protocol", "samples", "engine", "measurement_hash",
                     "run_fingerprint", "metrics", "pass_at_1")
    }  # fmt: skip
    Evaluation.objects.bulk_create(Evaluation(checkpoint=each, **fields) for each in made)


def test_queries_and_size_of_the_page_do_not_grow_with_the_rows(
    user: Any, page: Client, django_assert_max_num_queries: Any
) -> None:
    found = make_evaluation(
        user, make_checkpoint(user, "first"), make_benchmark(PROBLEMS), PROBLEMS, samples=2
    )
    counts = []
    for more in (9, 190):
        copies(found, more)
        page.get("/")  # the scores are read anew
        with django_assert_max_num_queries(9) as captured:
            response = page.get("/")
        counts.append(len(captured))
        assert len(response.content) < 300_000
    assert counts[0] == counts[1]
    assert len(ours(user)) == 200
    assert "Page 1 of" in text_of(response)
    assert text_of(response).count('name="e"') <= board.ROWS_PER_PAGE
    with django_assert_max_num_queries(9):
        lines = text_of(page.get("/leaderboard.csv")).count("\n")
    assert lines == 201


def test_metrics_are_read_without_their_problems(user: Any) -> None:
    make_evaluation(user, make_checkpoint(user, "m"), make_benchmark(PROBLEMS), PROBLEMS)
    evaluations = Evaluation.objects.values_list("pk", flat=True)
    (found,) = queries.measured(evaluations, Memo()).values()
    assert "per_problem" not in found.metrics
    assert found.metrics["pass@1"]["value"] is not None
    assert found.temperature == PRESETS["quick"].sampling.temperature
