"""Pages: who may see them, what they show, that hostile text stays text, and their query counts."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.test import Client
from django.urls import reverse

from evaluator.protocol import PRESETS
from evaluator.records import Outcome
from tests.webapp.samples import (
    FUNNEL,
    HOSTILE,
    PREFLIGHT,
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    make_run,
    make_stage,
    write_corpus,
)
from webapp.benchmarks.models import PromptSet
from webapp.checkpoints.models import Checkpoint
from webapp.runs import files
from webapp.runs.models import Evaluation, Run, State, TrainingPoint

pytestmark = pytest.mark.django_db

PROBLEMS = arithmetic(12)


@pytest.fixture(autouse=True)
def _store(settings: Any, tmp_path: Any) -> None:
    settings.MEDIA_ROOT = tmp_path / "files"


@pytest.fixture
def evaluation(user: Any) -> Any:
    checkpoint = make_checkpoint(user, "tiny-adder")
    return make_evaluation(user, checkpoint, make_benchmark(PROBLEMS), PROBLEMS, samples=4)


def hostile_draw(rng: Any, problem: Any, sample: int) -> Any:
    thoughts = f"<think>\n{HOSTILE}\n</think>\n"
    return thoughts + HOSTILE, Outcome.WRONG, HOSTILE, HOSTILE


def text_of(response: Any) -> str:
    return response.content.decode()


# --- who may see what


def test_a_page_whose_session_has_ended_is_what_one_comes_back_to(evaluation: Any) -> None:
    """Not the part of it that htmx asked for, and not the address that its form was sent to."""
    part = reverse("runs:live", args=[evaluation.run_id])
    cancel = reverse("runs:cancel", args=[evaluation.run_id])
    page, elsewhere = f"/runs/{evaluation.run_id}/?a=1", "http://elsewhere.example/runs/1/"
    nobody = Client()
    polled = nobody.get(part, headers={"HX-Request": "true"})
    assert (polled["HX-Refresh"], polled.content) == ("true", b"")
    for referer, then in ((f"http://testserver{page}", page), (elsewhere, "/"), ("", "/")):
        asked = nobody.post(cancel, headers={"Referer": referer} if referer else {})
        assert asked.status_code == 302
        assert parse_qs(urlsplit(asked["Location"]).query) == {"next": [then]}
    assert nobody.get(page)["Location"] == f"/accounts/login/?{urlencode({'next': page}, safe='/')}"


STATIC_PAGES = [
    "leaderboard:index", "leaderboard:compare", "runs:index", "runs:index_live", "runs:distil",
    "runs:evaluate", "runs:import", "checkpoints:index", "checkpoints:upload", "endpoints:index",
    "endpoints:register", "benchmarks:index",
]  # fmt: skip


@pytest.mark.parametrize("name", STATIC_PAGES)
def test_pages_ask_strangers_to_sign_in_and_answer_others(name: str, page: Client) -> None:
    address = reverse(name)
    stranger = Client().get(address)
    assert stranger.status_code == 302
    assert stranger["location"].startswith(reverse("core:login"))
    assert page.get(address).status_code == 200


def test_the_pages_of_rows_ask_strangers_to_sign_in_too(evaluation: Any, page: Client) -> None:
    for address in addresses(evaluation):
        assert Client().get(address).status_code == 302, address
        assert page.get(address).status_code == 200, address


def addresses(evaluation: Any) -> list[str]:
    problem = evaluation.benchmark.problems.first()
    return [
        evaluation.get_absolute_url(),
        reverse("leaderboard:problem", args=[evaluation.pk, problem.pk]),
        reverse("leaderboard:report_html", args=[evaluation.pk]),
        reverse("leaderboard:report_json", args=[evaluation.pk]),
        evaluation.run.get_absolute_url(),
        reverse("runs:live", args=[evaluation.run.pk]),
        evaluation.checkpoint.get_absolute_url(),
        reverse("benchmarks:detail", args=[evaluation.benchmark.pk]),
    ]


def test_signing_in_leads_to_the_leaderboard_and_a_wrong_password_says_so(user: Any) -> None:
    client = Client()
    address = reverse("core:login")
    wrong = client.post(address, {"username": "ada", "password": "wrong"})
    assert "enter a correct username and password" in text_of(wrong)
    right = client.post(address, {"username": "ada", "password": "a long enough password"})
    assert right["location"] == reverse("leaderboard:index")


def test_what_does_not_exist_is_a_page_in_the_design(page: Client) -> None:
    for address in ("/nowhere/", "/evaluations/999/", "/runs/999/", "/checkpoints/999/"):
        response = page.get(address)
        assert response.status_code == 404
        assert "There is no page here" in text_of(response)


def test_an_expired_form_is_refused_in_the_design(user: Any) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(user)
    response = strict.post(reverse("core:logout"))
    assert response.status_code == 403
    assert "The form has expired" in text_of(response)


def test_launching_and_cancelling_need_a_post(page: Client, user: Any) -> None:
    run = make_run(user, "r", Run.Kind.EVALUATION, State.RUNNING)
    for name in ("runs:cancel", "runs:retry"):
        assert page.get(reverse(name, args=[run.pk])).status_code == 405


def test_only_its_owner_and_staff_cancel_and_retry_a_run(user: Any, page: Client) -> None:
    stranger, staff = Client(), Client()
    users = type(user).objects
    stranger.force_login(users.create_user("eve"))
    staff.force_login(users.create_user("sam", is_staff=True))
    for client in (staff, page):
        run = make_run(user, "r", Run.Kind.EVALUATION, State.RUNNING)
        make_stage(run, 0, "evaluate", "Draw", state=State.RUNNING)
        for name, after in (("runs:cancel", State.CANCELLED), ("runs:retry", State.QUEUED)):
            address, before = reverse(name, args=[run.pk]), run.state
            assert address not in text_of(stranger.get(run.get_absolute_url()))
            assert stranger.post(address).status_code == 403
            run.refresh_from_db()
            assert run.state == before
            assert address in text_of(client.get(run.get_absolute_url()))
            assert client.post(address).status_code == 302
            run.refresh_from_db()
            assert run.state == after


# --- the content policy


def test_no_page_has_inline_scripts_or_styles(evaluation: Any, page: Client) -> None:
    for address in [*map(reverse, STATIC_PAGES), *addresses(evaluation)]:
        if "report" in address:
            continue  # a file to keep, with a policy of its own
        text = text_of(page.get(address))
        for script in re.findall(r"<script([^>]*)>", text):
            assert "src=" in script or 'type="application/json"' in script, (address, script)
        assert " style=" not in text, address
        assert not re.search(r"\son\w+=", re.sub(r"<script.*?</script>", "", text, flags=re.S))


def test_hostile_text_is_escaped_wherever_it_is_shown(user: Any, page: Client) -> None:
    checkpoint = make_checkpoint(user, "hostile", notes=HOSTILE)
    benchmark = make_benchmark(PROBLEMS, title=HOSTILE)
    found = make_evaluation(user, checkpoint, benchmark, PROBLEMS, draw=hostile_draw)
    found.run.error = HOSTILE
    found.run.state = State.FAILED
    found.run.save()
    found.run.stages.update(log_tail=HOSTILE, error=HOSTILE)
    shown = 0
    everywhere = [reverse("leaderboard:index"), reverse("runs:index"), *addresses(found)]
    for address in everywhere:
        response = page.get(address)
        if response["content-type"] == "application/json":
            continue
        text = text_of(response)
        assert "<script>window" not in text, address
        assert "<img src=x" not in text, address
        shown += "&lt;script&gt;window" in text
    assert shown >= len(everywhere) - 3


# --- what the pages say


def test_the_leaderboard_shows_measured_and_published_scores(user: Any, page: Client) -> None:
    benchmark = make_benchmark(PROBLEMS, "aime_2024", "AIME 2024")
    found = make_evaluation(user, make_checkpoint(user, "mine"), benchmark, PROBLEMS, samples=4)
    text = text_of(page.get(reverse("leaderboard:index")))
    assert found.metrics is not None
    first = found.metrics["pass@1"]
    for share in (first["value"], first["low"], first["high"]):
        assert f"{100 * share:.1f}" in text
    assert found.measurement_hash[:8] in text
    assert "DeepSeek-R1-Distill-Qwen-1.5B" in text
    assert "28.9" in text
    assert "arXiv 2501.12948" in text
    hidden = text_of(page.get(reverse("leaderboard:index") + "?published=no"))
    assert "DeepSeek-R1-Distill-Qwen-1.5B" not in hidden


def test_a_figure_measured_otherwise_is_flagged(user: Any, page: Client) -> None:
    benchmark = make_benchmark(PROBLEMS)
    for name in ("one", "two"):
        make_evaluation(user, make_checkpoint(user, name), benchmark, PROBLEMS)
    assert "other measurement" not in text_of(page.get("/?benchmark=arithmetic"))
    greedy = make_checkpoint(user, "three")
    make_evaluation(user, greedy, benchmark, PROBLEMS, protocol=PRESETS["greedy"], samples=1)
    assert "other measurement" in text_of(page.get("/?benchmark=arithmetic"))


def test_an_incomplete_score_shows_its_bounds_and_never_a_value(user: Any, page: Client) -> None:
    def draw(rng: Any, problem: Any, sample: int) -> Any:
        lost = problem.id == "sum-003" and sample == 1
        outcome = Outcome.GRADER_ERROR if lost else Outcome.CORRECT
        return "x", outcome, None if lost else problem.answer, ""

    found = make_evaluation(
        user, make_checkpoint(user, "m"), make_benchmark(PROBLEMS), PROBLEMS, draw=draw
    )
    text = text_of(page.get(found.get_absolute_url()))
    assert "Incomplete" in text
    assert "the imported file" not in text
    Evaluation.objects.update(engine={"name": "replay"})
    replayed = text_of(page.get(Evaluation.objects.get().get_absolute_url()))
    assert "the imported file holds no completion for them" in replayed
    assert "retry the run" not in replayed
    assert "97.9" in text  # 47 of 48
    assert "100.0" in text
    assert "incomplete" in text_of(page.get("/?benchmark=arithmetic"))


def test_an_evaluation_names_its_scores_and_draws_every_sample(
    evaluation: Any, page: Client
) -> None:
    text = text_of(page.get(evaluation.get_absolute_url()))
    for name in ("pass@1[avg-of-4]", "cons@4", "pass@4"):
        assert name in text
    for figure in evaluation.metrics["per_problem"]:
        assert f"{figure['correct']} of 4" in text
        assert f'aria-label="{figure["correct"]} of 4 samples correct' in text
    assert sum(evaluation.metrics["outcomes"].values()) == 48


def test_a_sample_page_shows_the_text_with_the_thinking_folded(
    evaluation: Any, page: Client
) -> None:
    problem = evaluation.benchmark.problems.first()
    address = reverse("leaderboard:problem", args=[evaluation.pk, problem.pk])
    completion = evaluation.completions.get(problem=problem, sample=2)
    text = text_of(page.get(address + "?sample=2"))
    raw = files.completion_text(completion)["text"]
    assert raw.split("</think>")[1].strip() in text
    assert "<details" in text
    assert "<summary>Thinking" in text
    assert "?sample=1#sample" in text
    assert "?sample=3#sample" in text
    assert page.get(address + "?sample=77").status_code == 200
    assert page.get(address + "?sample=x").status_code == 200


def test_a_lost_segment_is_said_on_the_page(evaluation: Any, page: Client) -> None:
    completion = evaluation.completions.first()
    stage = completion.segment.shard.stage
    (files.segments_folder(stage) / completion.segment.name).unlink()
    address = reverse("leaderboard:problem", args=[evaluation.pk, completion.problem_id])
    response = page.get(address)
    assert response.status_code == 200
    assert "The text cannot be read" in text_of(response)


def test_reports_are_files_to_keep(evaluation: Any, page: Client) -> None:
    as_json = page.get(reverse("leaderboard:report_json", args=[evaluation.pk]))
    assert "attachment" in as_json["content-disposition"]
    data = json.loads(as_json.content)
    assert data["metrics"] == evaluation.metrics
    assert len(data["samples"]) == 48
    as_html = page.get(reverse("leaderboard:report_html", args=[evaluation.pk]))
    assert "attachment" in as_html["content-disposition"]
    assert evaluation.measurement_hash in text_of(as_html)


def test_an_evaluation_without_figures_has_no_report(evaluation: Any, page: Client) -> None:
    evaluation.metrics = None
    evaluation.save()
    assert page.get(evaluation.get_absolute_url()).status_code == 200
    assert page.get(reverse("leaderboard:report_html", args=[evaluation.pk])).status_code == 404


def test_a_failed_run_stays_with_its_cause_and_a_retry(user: Any, page: Client) -> None:
    run = make_run(user, "broken", Run.Kind.EVALUATION, State.FAILED)
    make_stage(run, 0, "evaluate", "Draw", state=State.FAILED, error="The disk is full; free some.")
    for address in (reverse("runs:index"), run.get_absolute_url()):
        assert "The disk is full; free some." in text_of(page.get(address))
    assert reverse("runs:retry", args=[run.pk]) in text_of(page.get(run.get_absolute_url()))


def test_polling_stops_at_a_final_state(user: Any, page: Client) -> None:
    for state in State.values:
        run = make_run(user, state, Run.Kind.EVALUATION, state)
        make_stage(run, 0, "evaluate", "Draw", state=state)
        text = text_of(page.get(reverse("runs:live", args=[run.pk])))
        assert ("every 2s" in text) == (state not in ("finished", "failed", "cancelled")), state


def test_a_run_shows_loss_funnel_and_traces(user: Any, page: Client) -> None:
    run = make_run(user, "d", Run.Kind.DISTILLATION, config={"thinking": {"kind": "tags"}})
    corpus = files.store_path("runs/1/2/lease/corpus")
    corpus.mkdir(parents=True)
    write_corpus(corpus.parent)
    make_stage(
        run, 0, "filter", "Filter",
        result={"corpus": "runs/1/2/lease/corpus", "funnel": FUNNEL, "manifest_hash": "0" * 64},
    )  # fmt: skip
    train = make_stage(run, 1, "train", "Train")
    TrainingPoint.objects.create(stage=train, step=1, values={"loss": 1.5})
    text = text_of(page.get(run.get_absolute_url()))
    assert 'data-chart="loss-data"' in text
    assert "mixed language" in text
    kept = text_of(page.get(reverse("runs:examples", args=[run.pk, "kept"])))
    assert "<summary>Thinking" in kept
    assert "prob-0" in kept
    dropped = text_of(page.get(reverse("runs:examples", args=[run.pk, "dropped"])))
    assert "answer: wrong answer" in dropped
    assert "<script>window" not in kept + dropped
    assert "&lt;script&gt;window" in kept
    assert page.get(reverse("runs:examples", args=[run.pk, "others"])).status_code == 404


@pytest.mark.parametrize("state", [State.FINISHED, State.FAILED])
def test_a_run_shows_what_was_checked_and_the_first_example_in_two_colours(
    state: str, user: Any, page: Client
) -> None:
    run = make_run(user, "d", Run.Kind.DISTILLATION, state, config={"thinking": {"kind": "tags"}})
    stage = make_stage(run, 0, "preflight", "Check the recipe", state=state)
    assert "Preflight" not in text_of(page.get(run.get_absolute_url()))
    folder = files.stage_folder(stage)
    folder.mkdir(parents=True)
    (folder / "preflight.json").write_text(json.dumps(PREFLIGHT))
    text = text_of(page.get(run.get_absolute_url()))
    order = [text.index(words) for words in ("it is too short; stretch it.", "name another.")]
    assert order == sorted(order)
    assert "1 check passed or only to know" in text
    assert "asked &lt;script&gt;" in text
    assert '<mark class="learnt">answered &lt;script&gt;' in text
    assert "<script>window" not in text


def test_a_prompt_set_is_paged_from_its_file(page: Client, settings: Any) -> None:
    path = settings.MEDIA_ROOT / "prompts" / "p.jsonl"
    path.parent.mkdir(parents=True)
    prompts = arithmetic(40)
    path.write_text("".join(json.dumps(p.to_json()) + "\n" for p in prompts))
    found = PromptSet.objects.create(
        name="p", content_hash="0" * 64, path="prompts/p.jsonl", prompt_count=40
    )
    address = reverse("benchmarks:prompt_set", args=[found.pk])
    assert "sum-000" in text_of(page.get(address))
    second = text_of(page.get(address + "?page=2"))
    assert "sum-025" in second
    assert "sum-000" not in second


def test_empty_pages_say_what_to_do(page: Client) -> None:
    assert "import_benchmark" in text_of(page.get(reverse("benchmarks:index")))
    for name in ("runs:index", "checkpoints:index"):
        assert 'class="empty"' in text_of(page.get(reverse(name)))
    assert "register an endpoint first" in text_of(page.get(reverse("runs:evaluate")))


# --- query counts


def fill(user: Any, count: int) -> None:
    benchmark = make_benchmark(PROBLEMS, f"set-{count}", f"Set {count}")
    for i in range(count):
        checkpoint = make_checkpoint(user, f"model-{count}-{i}")
        make_evaluation(user, checkpoint, benchmark, PROBLEMS, samples=2, seed=i)


@pytest.mark.parametrize(
    ("address", "most"),
    [
        ("/", 10), ("/runs/", 8), ("/checkpoints/", 8), ("/benchmarks/", 5), ("/runs/distil/", 11),
        ("/runs/evaluate/", 7),
    ],
)  # fmt: skip
def test_lists_need_the_same_few_queries_however_long(
    address: str, most: int, user: Any, page: Client, django_assert_max_num_queries: Any
) -> None:
    counts = []
    for size in (2, 7):
        fill(user, size)
        with django_assert_max_num_queries(14):
            page.get("/")  # the first visit after a change reads the scores for all
        with django_assert_max_num_queries(most) as captured:
            page.get(address)
        counts.append(len(captured))
    assert counts[0] == counts[1]


def test_pages_of_an_evaluation_need_few_queries(
    evaluation: Any, page: Client, django_assert_max_num_queries: Any
) -> None:
    for address in addresses(evaluation):
        with django_assert_max_num_queries(17):
            page.get(address)


def test_list_pages_are_small(user: Any, page: Client) -> None:
    fill(user, 25)
    for address in ("/", "/runs/", "/checkpoints/", "/benchmarks/"):
        response = page.get(address)
        assert len(response.content) < 100_000
        assert "plotly" not in text_of(response)


# --- uploading


def test_a_refused_upload_says_why_and_keeps_nothing(page: Client) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    address = reverse("checkpoints:upload")
    pickled = SimpleUploadedFile("pytorch_model.bin", b"\x80\x04K\x01.")
    response = page.post(address, {"name": "bad", "files": [pickled]})
    assert response.status_code == 400
    assert 'class="error"' in text_of(response)
    assert not Checkpoint.objects.exists()
    empty = page.post(address, {})
    assert empty.status_code == 400
    assert text_of(empty).count('class="error"') == 2


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (["m/config.json/x.json", "m/config.json"], "two have the same name"),
        (["m/a.json", "m/A.json"], "two have the same name"),
        (["m/../../a.json"], "is not accepted"),
        (["/etc/a.json"], "is not accepted"),
        ([f"m/{'a' * 300}.json"], "is not accepted"),
        (["m/a\x00.json"], "is not accepted"),
        ([f"m/{n}.json" for n in range(1001)], "more than 1000"),
    ],
)
def test_hostile_paths_are_refused_and_leave_nothing(
    page: Client, settings: Any, paths: list[str], why: str
) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    files_ = [SimpleUploadedFile(f"f{n}", b"{}") for n in range(len(paths))]
    response = page.post(
        reverse("checkpoints:upload"),
        {"name": "bad", "files": files_, "paths": paths},
    )
    assert response.status_code == 400
    assert why in text_of(response)
    assert not Checkpoint.objects.exists()
    store = settings.MEDIA_ROOT / "checkpoints"
    assert not store.exists() or not list(store.iterdir())


def test_a_checkpoint_of_many_shards_is_not_too_many_files(page: Client) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    names = [f"model-{n:05d}-of-00163.safetensors" for n in range(163)]
    response = page.post(
        reverse("checkpoints:upload"),
        {
            "name": "large",
            "files": [SimpleUploadedFile(name, b"\x00") for name in names],
            "paths": [f"large/{name}" for name in names],
        },
    )
    assert response.status_code == 400
    # It is refused for what it holds, not for how much of it there is.
    assert "no config.json" in text_of(response)


def test_a_request_with_far_too_many_fields_is_a_page_in_the_design(page: Client) -> None:
    data = {f"field{n}": "" for n in range(3000)}
    response = page.post(reverse("checkpoints:upload"), data)
    assert response.status_code == 400
    assert "could not take this request" in text_of(response)
