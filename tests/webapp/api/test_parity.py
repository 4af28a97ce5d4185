"""Everything that a page does, the API does: a page's address without a line here fails."""

from __future__ import annotations

from collections.abc import Iterator

from django.urls import URLPattern, URLResolver, get_resolver

from tests.webapp.access_table import ACTS
from webapp.api.docs_views import _schema

# A page's name → the operations that do the same; or, as a sentence, why there is none.
MACHINES = "asked by machines as it is"
TUS = "the same protocol below /api/v1/uploads/"
SESSION = "for browsers: a session, which a token stands in for"
PASSWORD = "no token is to lead to a password"
# What a page changes and its operations only read, and why.
ONLY_READ = {"core:profile": PASSWORD}  # a mail address, to which a link for a new one goes
PAGES: dict[str, str | tuple[str, ...]] = {
    "healthz": MACHINES, "readyz": MACHINES,
    "metrics": MACHINES, "signing_key": ("signing_key",),
    "leaderboard:index": ("leaderboard_rows",), "leaderboard:csv": ("leaderboard_rows",),
    "leaderboard:compare": ("comparison_scores",),
    "leaderboard:compare_csv": ("comparison_scores",),
    "leaderboard:compare_problems_csv": ("comparison_problems",),
    "leaderboard:compare_problem": ("comparison_problems", "evaluations_completions"),
    "leaderboard:evaluation": ("evaluations_one",),
    "leaderboard:problem": ("evaluations_completions",),
    "leaderboard:raw": ("evaluations_completions",),
    "leaderboard:part": ("evaluations_completions",),
    "leaderboard:dispute": ("disputes_make",), "leaderboard:disputes": ("disputes_list",),
    "leaderboard:disputed_score": ("disputes_score",),
    "leaderboard:disputes_jsonl": ("disputes_export",),
    "leaderboard:withdraw": ("disputes_withdraw",), "leaderboard:reports": ("reports_list",),
    "leaderboard:reports_live": ("reports_list",), "leaderboard:ask_report": ("reports_ask",),
    "leaderboard:download": ("reports_file",), "leaderboard:report_html": ("reports_at_once",),
    "leaderboard:report_json": ("reports_at_once",), "leaderboard:report_csv": ("reports_at_once",),
    "leaderboard:report_parquet": ("reports_at_once",),
    "leaderboard:signing_key": ("signing_key",),
    "tokens:index": ("tokens_list", "tokens_make"), "tokens:revoke": ("tokens_revoke",),
    "benchmarks:index": ("benchmarks_list", "prompt_sets_list"),
    "benchmarks:detail": ("benchmarks_one", "benchmarks_problems"),
    "benchmarks:contests": ("contests_list", "populations_list", "contests_add"),
    "benchmarks:prompt_set": ("prompt_sets_one", "prompt_sets_prompts"),
    "checkpoints:index": ("checkpoints_list",),
    "checkpoints:detail": ("checkpoints_one", "checkpoints_lineage", "checkpoints_graph"),
    "checkpoints:edit": ("checkpoints_edit",), "checkpoints:card": ("checkpoints_card",),
    "checkpoints:tar": ("checkpoints_tar",), "checkpoints:run-lineage": ("runs_graph",),
    "checkpoints:upload": ("uploads_begin",), "checkpoints:begin": ("uploads_begin",),
    "checkpoints:hub": ("uploads_hub",), "checkpoints:folder": ("uploads_folder",),
    "checkpoints:resume": ("uploads_one",), "checkpoints:upload-live": ("uploads_one",),
    "checkpoints:finish": ("uploads_finish",), "checkpoints:discard": ("uploads_discard",),
    "checkpoints:tus-files": TUS,
    "checkpoints:tus-file": TUS,
    "core:login": SESSION, "core:logout": SESSION, "core:reset": PASSWORD,
    "core:reset-confirm": PASSWORD, "core:make-reset-link": PASSWORD, "core:password": PASSWORD,
    "core:profile": ("me",), "core:end-other-sessions": SESSION, "core:end-session": SESSION,
    "core:people": ("people_list",), "core:deactivate": ("people_active",),
    "core:activate": ("people_active",), "core:audit": ("audit_list",),
    "core:audit-csv": ("audit_list",),
    "projects:index": ("projects_list", "projects_make"), "projects:detail": ("projects_one",),
    "projects:change": ("projects_change",), "projects:delete": ("projects_delete",),
    "projects:invite": ("invitations_make",), "projects:revoke-invitation": ("invitations_revoke",),
    "projects:add-member": ("members_add",), "projects:role": ("members_role",),
    "projects:remove-member": ("members_remove",), "projects:invitation": SESSION,
    "projects:invitation-link": SESSION,
    "costs:index": ("costs_list",), "endpoints:index": ("endpoints_list",),
    "endpoints:register": ("endpoints_register",),
    "endpoints:detail": ("endpoints_one", "endpoints_change"),
    "endpoints:test": ("endpoints_test",), "endpoints:delete": ("endpoints_delete",),
    "notifications:settings": ("notifications_settings", "notifications_change"),
    "notifications:test": ("notifications_test",), "runs:index": ("runs_list",),
    "runs:index_live": ("runs_list",), "runs:distil": ("runs_distil", "runs_presets", "chats_keep"),
    "runs:distil_recipe": ("runs_recipe",), "runs:distil_estimate": ("runs_distil_estimate",),
    "runs:distil_check": ("runs_check",), "runs:evaluate": ("runs_evaluate",),
    "runs:evaluate_plan": ("runs_evaluate_estimate",), "runs:import": ("runs_import",),
    "runs:workers": ("workers_list",), "runs:workers_live": ("workers_list",),
    "runs:drain": ("workers_drain",), "runs:turns": ("runs_list", "people_list"),
    "runs:limit": ("people_limit",), "runs:detail": ("runs_one",),
    "runs:priority": ("runs_priority",), "runs:live": ("runs_one", "runs_log"),
    "runs:checked": ("runs_checked",), "runs:latest": ("runs_latest",),
    "runs:examples": ("runs_examples",), "runs:cancel": ("runs_cancel",),
    "runs:retry": ("runs_retry",), "housekeeping:index": ("storage_own",),
    "housekeeping:disk": ("storage_disk",),
    "housekeeping:checkpoint": ("checkpoints_keep", "checkpoints_delete"),
    "housekeeping:run": ("runs_keep", "runs_delete"),
}  # fmt: skip


def names(patterns: list[URLPattern | URLResolver], before: str = "") -> Iterator[str]:
    for each in patterns:
        if isinstance(each, URLPattern):
            yield before + str(each.name)
        elif each.namespace != "api":
            yield from names(each.url_patterns, f"{each.namespace}:" if each.namespace else before)


def test_every_page_has_its_operations() -> None:
    known = {told["operationId"] for path in _schema()["paths"].values() for told in path.values()}
    pages = set(names(get_resolver().url_patterns))
    assert pages - set(PAGES) == set()
    promised = {each for line in PAGES.values() if isinstance(line, tuple) for each in line}
    assert promised <= known


def test_what_a_page_changes_an_operation_changes() -> None:
    methods = {
        told["operationId"]: method
        for path in _schema()["paths"].values() for method, told in path.items()
    }  # fmt: skip
    pages = {act.name for act in ACTS if act.method not in ("get", "head", "options")}
    assert len(pages) > 40
    for page in pages:
        line = PAGES[page]
        if isinstance(line, tuple):
            assert {methods[each] for each in line} != {"get"} or page in ONLY_READ, page
        else:
            assert line in (SESSION, PASSWORD) or line == TUS, page


def test_only_what_has_a_reason_is_left_out() -> None:
    reasons = {line for line in PAGES.values() if isinstance(line, str)}
    assert reasons == {MACHINES, SESSION, PASSWORD, TUS}
