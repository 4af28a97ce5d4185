"""A whole installation of real processes, every secret planted: a job, then a look everywhere.

    python -m tests.hosts.whole

Web server and workers are what ``manage.py up`` starts, with a judge's worker beside them that has
its own database role. Prints one JSON object: where a secret was seen.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from tests.evaluator import programs
from tests.evaluator.endpoint_stub import Body, Stub, refuse, reply
from tests.hosts.network import Network
from tests.hosts.planted import Search, Watch
from tests.hosts.servers import PASSWORD, Bucket, Postgres, Redis, free_port, wait_for
from tests.webapp.models import model_files
from tests.webapp.receiver import Receiver

ROOT = Path(__file__).resolve().parents[2]
BROKER_PASSWORD = "planted-broker-" + secrets.token_hex(12)
JUDGE = "retort_judge"


class PlantedRedis(Redis):
    """Redis with a password that is no other server's."""

    password = BROKER_PASSWORD


def drawn(name: str) -> str:
    """A secret of that name."""
    return f"planted-{name}-{secrets.token_hex(12)}"


class Whole:
    """The installation: its secrets, servers and processes."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o711)  # as root, PostgreSQL runs as another user, who has to pass through
        self.folder, self.port = folder, free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.has_database = True
        self.secrets = {
            name: drawn(name)
            for name in (
                "secret", "older", "encryption", "judge", "bucket", "hub", "metrics", "mail",
                "endpoint", "person",
            )
        } | {"database": PASSWORD, "broker": BROKER_PASSWORD}  # fmt: skip
        network = Network(isolated=False)
        self.postgres = Postgres(folder / "room", network)
        self.broker = PlantedRedis(folder / "broker", network)
        self.bucket = Bucket(folder / "bucket", network)
        signing = folder / "signing_key.pem"
        from evaluator import signing as own

        own.private_key(signing)
        self.secrets["signing"] = signing.read_text().splitlines()[1]

    def plain(self, name: str) -> dict[str, str]:
        """What the processes are told that is no secret."""
        return {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "DJANGO_SETTINGS_MODULE": "webapp.config.settings", "LOG_LEVEL": "DEBUG",
            "RETORT_VAR": str(self.folder / "var" / name), "RETORT_HOST": name,
            "RETORT_REAP_SECONDS": "0.5", "RETORT_RETRY_SECONDS": "0.1", "RETORT_STAGE_JOBS": "1",
            "RETORT_ALLOW_PRIVATE_ENDPOINTS": "1", "RETORT_URL": self.url,
            "CELERY_BROKER_URL": self.broker.url("alpha", password=BROKER_PASSWORD),
            **self.bucket.environment("127.0.0.1"),
            "AWS_SECRET_ACCESS_KEY": self.secrets["bucket"],
        }  # fmt: skip

    def trusted(self, name: str = "web") -> dict[str, str]:
        """The environment of web server and trusted workers."""
        told = self.secrets
        return self.plain(name) | {
            "DATABASE_URL": self.postgres.url("alpha"), "SECRET_KEY": told["secret"],
            "SECRET_KEY_FALLBACKS": told["older"], "RETORT_ENCRYPTION_KEYS": told["encryption"],
            "HF_TOKEN": told["hub"], "RETORT_METRICS_TOKEN": told["metrics"],
            "EMAIL_URL": f"smtp://ada:{told['mail']}@127.0.0.1:{free_port()}",
            "RETORT_SIGNING_KEY": str(self.folder / "signing_key.pem"),
            "RETORT_QUEUES": "gpu,cpu,upkeep", "RETORT_GPU_QUEUE_ON_CPU": "1",
        }  # fmt: skip

    @property
    def url(self) -> str:
        """Of the web server."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, log: str, *command: str, environment: dict[str, str]) -> None:
        """Start ``python`` with the command; what it says goes to a file under ``said``."""
        (self.folder / "said").mkdir(exist_ok=True)
        with (self.folder / "said" / log).open("ab") as file:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, *command], cwd=ROOT, env=environment, stdout=file, stderr=file,
                    start_new_session=True,
                )
            )  # fmt: skip

    def carry_out(self, log: str, *command: str, **more: str) -> None:
        """Run a command to its end."""
        self.start(log, *command, environment=self.trusted() | more)
        assert self.processes.pop().wait(180) == 0, (self.folder / "said" / log).read_text()

    def stop(self) -> None:
        """End the processes politely."""
        for each in self.processes:
            each.terminate()
        for each in self.processes:
            each.wait(60)
        self.processes.clear()

    def close(self) -> None:
        """End everything."""
        for each in self.processes:
            os.killpg(each.pid, signal.SIGKILL)
            each.wait()
        for server in (self.broker, self.bucket):
            server.kill()
        self.stop_database()

    def stop_database(self) -> None:
        """Once."""
        if self.has_database:
            self.postgres.stop()
        self.has_database = False


class Person:
    """Who works with the installation by HTTP: by a session, then by a token."""

    def __init__(self, whole: Whole) -> None:
        self._whole = whole
        self.browser = httpx.Client(base_url=whole.url, timeout=60, headers={"Referer": whole.url})
        self.answers: list[tuple[str, bytes]] = []  # but for those that show a secret once

    def get(self, address: str) -> httpx.Response:
        """A page, whatever its status."""
        answer = self.browser.get(address)
        self.answers.append((address, repr(answer.headers).encode() + answer.content))
        return answer

    def sign_in(self, password: str) -> None:
        """By the page's form."""
        token = re.search(
            r'name="csrfmiddlewaretoken" value="(\w+)"', self.get("/accounts/login/").text
        )
        assert token is not None
        form = {"csrfmiddlewaretoken": token[1], "username": "ada", "password": password}
        assert self.browser.post("/accounts/login/", data=form).status_code == 302
        self._password = password
        session = self.browser.cookies["sessionid"]
        assert self.get("/accounts/").status_code == 200
        self._whole.secrets["session"] = session

    def take_token(self) -> None:
        """Make an API token, and use it from now on beside the session."""
        page = self.get("/accounts/tokens/").text
        csrf = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert csrf is not None
        form = {
            "csrfmiddlewaretoken": csrf[1], "name": "a laptop", "scope": "write", "days": "90",
            "project": "", "password": self._password,
        }  # fmt: skip
        made = re.search(
            r"<code>(retort_[\w-]{43})</code>",
            self.browser.post("/accounts/tokens/", data=form).text,
        )
        assert made is not None
        self._whole.secrets["token"] = made[1]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """A request of the API with the token; raw bytes are sent as they are."""
        headers["Authorization"] = f"Bearer {self._whole.secrets['token']}"
        sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
        where = path if path.startswith("/") else f"/api/v1/{path}"
        answer = httpx.request(method, self._whole.url + where, headers=headers, timeout=60, **sent)
        if "secret" not in (answer.text[:2000] if method == "PUT" else ""):
            self.answers.append((path, repr(answer.headers).encode() + answer.content))
        return answer


def endpoint(whole: Whole) -> Any:
    """What the served model says: right programs, one that never ends, one refusal with the key."""
    asked = {"times": 0}

    async def behave(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {whole.secrets['endpoint']}":
            return refuse(401, "no such key")
        question = body["messages"][-1]["content"]
        [problem] = [name for name, power in programs.POWERS.items() if f"n^{power}" in question]
        asked["times"] += 1
        if problem == "9001/B" and body["seed"] % 2:
            return refuse(400, f"refused, {whole.secrets['endpoint']}")
        return reply(
            body, programs.text(problem, programs.SLOW if asked["times"] == 1 else programs.RIGHT)
        )

    return behave


async def unlisted(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
    """The list of models is refused, with what was sent."""
    return refuse(400, f"not for {request.headers.get('Authorization')}")


def do_the_job(whole: Whole, person: Person, stub: Stub, hook: Receiver) -> list[str]:
    """Everything by HTTP: sign in, measure, upload, ask for reports; the pages that show it."""
    person.sign_in(whole.secrets["person"])
    person.take_token()
    told = person.ask("PUT", "notifications", {"webhook_url": hook.url, "email": "ada@example.org"})
    assert told.status_code == 200, told.text
    whole.secrets["webhook"] = told.json()["secret"]
    made = person.ask(
        "POST", "endpoints",
        {"name": "served", "base_url": stub.url, "model": "m", "key": whole.secrets["endpoint"]},
    )  # fmt: skip
    assert made.status_code == 201, made.text
    person.ask("POST", f"endpoints/{made.json()['id']}/test", {})
    files = model_files()
    listed = [{"path": name, "length_bytes": len(data)} for name, data in files.items()]
    upload = person.ask("POST", "uploads", {"name": "brought", "files": listed}).json()
    for each in upload["files"]:
        sent = person.ask(
            "PATCH", each["url"], files[each["path"]],
            **{"Tus-Resumable": "1.0.0", "Upload-Offset": "0",
               "Content-Type": "application/offset+octet-stream"},
        )  # fmt: skip
        assert sent.status_code == 204, sent.text
    assert person.ask("POST", f"uploads/{upload['id']}/finish", {}).status_code == 200
    run = person.ask(
        "POST", "runs/evaluate",
        {"checkpoints": ["served"], "benchmarks": ["codeforces"], "samples": 2},
    ).json()  # fmt: skip

    def state(path: str) -> str:
        return str(person.ask("GET", path).json()["state"])

    over = ("finished", "failed", "cancelled")
    wait_for(lambda: state(f"runs/{run['id']}") in over, "the run's end")
    [evaluation] = person.ask("GET", f"runs/{run['id']}").json()["evaluations"]
    reports = f"evaluations/{evaluation}/reports"
    for form in ("zip", "pdf"):
        assert person.ask("POST", reports, {"form": form}).status_code == 201
    wait_for(
        lambda: {r["state"] for r in person.ask("GET", reports).json()} == {"ready"}, "reports"
    )
    for report in person.ask("GET", reports).json():
        assert person.ask("GET", f"{reports}/{report['id']}/file").status_code == 200
    for form in ("html", "json", "csv", "parquet"):
        assert person.ask("GET", f"evaluations/{evaluation}/report/{form}").status_code == 200
    wait_for(lambda: state(f"uploads/{upload['id']}") in ("registered", "refused"), "the upload")
    wait_for(lambda: hook.seen, "the webhook")
    for page in (
        "/", f"/runs/{run['id']}/", f"/evaluations/{evaluation}/", "/endpoints/", "/accounts/",
        "/accounts/tokens/", "/notifications/", "/no-such-page/", "/checkpoints/",
    ):  # fmt: skip
        person.get(page)
    return [state(f"runs/{run['id']}"), state(f"uploads/{upload['id']}")]


def break_everything(whole: Whole, person: Person) -> list[int]:
    """Take broker, bucket and database away in turn, and ask for what needs them."""
    statuses = []
    whole.bucket.kill()
    statuses.append(person.ask("GET", "evaluations/1/reports/1/file").status_code)
    whole.broker.kill()
    again = {"checkpoints": ["served"], "benchmarks": ["codeforces"], "samples": 1}
    statuses.append(person.ask("POST", "runs/evaluate", again).status_code)
    whole.stop_database()
    return statuses + [person.get(each).status_code for each in ("/", "/readyz", "/api/v1/runs")]


def play(whole: Whole) -> dict[str, Any]:
    """Do it all, then look everywhere."""
    os.environ |= whole.trusted("test") | {
        "DATABASE_URL": whole.postgres.local_url, "LOG_LEVEL": "WARNING",
    }  # fmt: skip
    import django

    django.setup()
    from django.db import connection

    from tests.webapp.test_endpoints import database_dump

    watch = Watch()
    try:
        set_up(whole)
        person = Person(whole)
        with Stub(endpoint(whole), listing=unlisted) as stub, Receiver() as hook:
            ended = do_the_job(whole, person, stub, hook)
        stored = list(store_contents(whole))
        rows = database_dump().encode()
        dump = dumped(whole)
        connection.close()
        broken = break_everything(whole, person)
        whole.stop()
    finally:
        watch.close()
    search = Search(whole.secrets)
    folders = ("var", "kept", "said")
    places = {
        "rows": rows, "dump": dump,
        **{f"bucket: {name}": data for name, data in stored},
        **{f"answer {number} of {path}": data
           for number, (path, data) in enumerate(person.answers)},
    }  # fmt: skip
    return {
        "ended": ended, "broken": broken, "planted": sorted(whole.secrets),
        "told": watch.told(search), "command_lines": watch.shown(search),
        "found": {
            where: sorted(names)
            for where, data in places.items()
            if (names := search.names_in(data))
        },
        "files": {name: search.in_files(whole.folder / name) for name in folders},
        "looked_at": {
            "rows": len(rows), "dump": len(dump), "objects": len(stored),
            "answers": len(person.answers), "tracebacks": said(whole).count("Traceback"),
            **{name: sum(each.is_file() for each in (whole.folder / name).rglob("*"))
               for name in folders},
        },
    }  # fmt: skip


def set_up(whole: Whole) -> None:
    """Rows to work with; then web server and workers."""
    from django.core.management import call_command

    from webapp.core.models import User

    call_command("migrate", verbosity=0)
    judge = whole.secrets["judge"]
    whole.carry_out("judge_role", "manage.py", "judge_role", JUDGE_PASSWORD=judge)
    User.objects.create_user("ada", password=whole.secrets["person"])
    bundles = [
        programs.write_json(whole.folder / f"{name}.json", programs.bundle(name))
        for name in ("9001", "9002")
    ]
    call_command("import_contests", *map(str, bundles), "--problems", verbosity=0)
    whole.start("up", "manage.py", "up", "--port", str(whole.port), environment=whole.trusted())
    # No more than a host of the judge's needs: none of the installation's own keys.
    environment = whole.plain("judge") | {
        "DATABASE_URL": whole.postgres.url("alpha", password=judge, user=JUDGE),
        "RETORT_QUEUES": "judge",
    }
    whole.start("judge", "-m", "workers", environment=environment)
    wait_for(lambda: answers(whole.url), "the web server")


def dumped(whole: Whole) -> bytes:
    """What the database's part of a backup says; the backup itself lies under ``kept``."""
    from webapp.core.backup import DUMP, _program

    whole.carry_out("backup", "manage.py", "backup", str(whole.folder / "kept"))
    return subprocess.run(
        [_program("pg_restore"), "--file=-", str(whole.folder / "kept" / DUMP)],
        capture_output=True, check=True, env={"PATH": os.environ["PATH"]},
    ).stdout  # fmt: skip


def said(whole: Whole) -> str:
    """Everything that the processes printed."""
    return "".join(path.read_text() for path in sorted((whole.folder / "said").iterdir()))


def answers(url: str) -> bool:
    """Whether the web server does."""
    try:
        return httpx.get(f"{url}/healthz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def store_contents(whole: Whole) -> Any:
    """Name and content of everything in the bucket."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{whole.bucket.port}", region_name="us-east-1"
    )
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=whole.bucket.name):
        for each in page.get("Contents", []):
            body = client.get_object(Bucket=whole.bucket.name, Key=each["Key"])["Body"]
            yield each["Key"], body.read()


def main() -> None:
    """Set it up in a folder that is gone afterwards (unless --keep)."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="retort-whole-"))
    whole = Whole(folder)
    try:
        result = play(whole)
    finally:
        whole.close()
        if options.keep:
            sys.stderr.write(f"{folder}\n")
        else:
            shutil.rmtree(folder)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
