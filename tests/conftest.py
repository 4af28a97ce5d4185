"""What every test may use: the embedded servers, and a person to own things."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

from tests.bucket import bucket, host, line

__all__ = ["bucket", "host", "line"]  # fixtures

# The suite is deterministic: it draws the same examples each time, and a busy machine's pauses fail
# none. HYPOTHESIS_PROFILE=default looks for new ones.
hypothesis_settings.register_profile("suite", derandomize=True, deadline=None)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

# A shell that starts the suite in the background has it ignore Ctrl-C, and so would every process
# that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest file goes first: as the last one it would keep one process alone for minutes.
    items.sort(key=lambda item: "tests/hosts/" not in item.nodeid)
    if SHARED_DATA.is_dir():
        return
    for item in items:
        if item.get_closest_marker("shared_data"):
            item.add_marker(pytest.mark.skip(reason=f"no development data at {SHARED_DATA}"))


@pytest.fixture(scope="session")
def servers() -> None:
    """PostgreSQL and Redis under this session's private folder, shared by all its processes."""
    from webapp.config.embedded import ensure_running

    ensure_running()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    servers: None, django_db_modify_db_settings_parallel_suffix: None
) -> None:
    """pytest-django asks for this before it makes the test database: the servers must run."""


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    """What the migrations bring is there for every test: one that commits leaves tables empty."""
    from django.db.models.signals import post_migrate

    post_migrate.connect(_first_project, dispatch_uid="first project")


def _first_project(app_config: Any, **_: Any) -> None:
    if app_config.name == "webapp.projects":
        from webapp.projects.access import first_project

        first_project()


@pytest.fixture
def user(db: None) -> Any:
    from django.contrib.auth import get_user_model

    return get_user_model().objects.create_user("ada", password="a long enough password")


@pytest.fixture
def admin(db: None) -> Any:
    from django.contrib.auth import get_user_model

    return get_user_model().objects.create_superuser("root", password="a long enough password")


@pytest.fixture
def process_environment(transactional_db: None) -> dict[str, str]:
    """Environment for a process of the product that works on this test's database."""
    from django.conf import settings
    from django.db import connection

    database = connection.settings_dict
    return {
        **{k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")},
        "DJANGO_SETTINGS_MODULE": "webapp.config.settings",
        "RETORT_VAR": os.environ["RETORT_TEST_VAR"],
        "DATABASE_URL": f"postgres:///{database['NAME']}?host={database['HOST']}"
        f"&user={database['USER']}",
        "CELERY_BROKER_URL": settings.CELERY_BROKER_URL,
        "RETORT_GPU_QUEUE_ON_CPU": "1",
    }
