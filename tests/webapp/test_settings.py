"""The settings and what they promise of every process that loads them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection

from webapp.config.embedded import Servers
from webapp.config.secrets import secret_key

ROOT = Path(__file__).resolve().parents[2]


def test_loading_django_loads_no_torch(process_environment: dict[str, str]) -> None:
    program = (
        "import sys, django; django.setup();"
        "from django.urls import get_resolver; get_resolver().url_patterns;"
        "from webapp.runs import leases, services, stages, files;"
        "from webapp.checkpoints import services; from webapp.benchmarks import services;"
        "print(sorted({m.partition('.')[0] for m in sys.modules}"
        " & {'torch', 'transformers', 'vllm', 'accelerate', 'peft', 'workers'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, env=process_environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stderr


def test_a_worker_imports_no_torch(process_environment: dict[str, str]) -> None:
    program = (
        "import sys; import workers.app;"
        "print(sorted({m.partition('.')[0] for m in sys.modules}"
        " & {'torch', 'transformers', 'vllm', 'accelerate', 'peft'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, env=process_environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.django_db
def test_migrations_say_what_the_models_say() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


@pytest.mark.django_db
def test_the_database_is_postgresql() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        assert cursor.fetchone()[0].startswith("18.")


def test_the_secret_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    key = secret_key(tmp_path)
    assert len(key) >= 50
    assert secret_key(tmp_path) == key
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["secret_key"]


@pytest.mark.parametrize("depth", [1, 60])
def test_socket_paths_fit_whatever_the_folder(depth: int) -> None:
    servers = Servers(Path("/") / "/".join(["folder"] * depth))
    assert len(str(servers.postgres_sockets / ".s.PGSQL.5432")) <= 107
    assert len(str(servers.redis_socket)) <= 107


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("", {"statement_timeout": "0", "tcp_keepalives_idle": "20"}),
        (
            "&options=-c%20statement_timeout%3D7s%20-c%20tcp_keepalives_idle%3D9",
            {"statement_timeout": "7s", "tcp_keepalives_idle": "9"},
        ),
    ],
)
def test_a_connection_that_falls_silent_is_given_up_at_both_ends(
    process_environment: dict[str, str], named: str, said: dict[str, str]
) -> None:
    """What the address itself sets is joined to it, and wins."""
    program = (
        "import json, django; django.setup();"
        "from django.db import connection as c;"
        "values = dict(each.split('=') for each in c.get_connection_params()['options'].split()"
        " if each != '-c');"
        "print(json.dumps(values))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env=process_environment | {"DATABASE_URL": f"postgres:///d?host=/nowhere{named}"},
    )  # fmt: skip
    values = json.loads(done.stdout)
    assert {"statement_timeout": "0", **values} == {
        "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3", "tcp_user_timeout": "20000",
        **said,
    }  # fmt: skip


@pytest.mark.parametrize("https", ["0", "1"])
def test_cookies_and_transport_follow_one_setting(
    https: str, process_environment: dict[str, str]
) -> None:
    program = (
        "import json; from django.conf import settings as s; print(json.dumps(["
        "s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_HSTS_SECONDS > 0,"
        "s.SECURE_HSTS_INCLUDE_SUBDOMAINS, s.RETORT_PROXIES, s.SESSION_COOKIE_AGE]))"
    )
    more = {"RETORT_HTTPS": https, "RETORT_HSTS_SUBDOMAINS": https, "RETORT_SESSION_HOURS": "1.5"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=process_environment | more,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    on = https == "1"
    assert json.loads(done.stdout) == [on, on, on, on, int(on), 5400]
