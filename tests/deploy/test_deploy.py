"""deploy/ says what the product is: every variable, command, target and image in it exists."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluator import signing

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
UNITS = sorted((DEPLOY / "systemd").iterdir())
# Read by libraries, or by compose itself.
FOREIGN = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "DJANGO_SETTINGS_MODULE"}
COMPOSE_ONLY = {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "JUDGE_PASSWORD"}


def known_variables() -> set[str]:
    """What the settings read from the environment."""
    text = (ROOT / "webapp" / "config" / "settings.py").read_text()
    return set(re.findall(r'env\.\w+\(\s*"(\w+)"', text)) | FOREIGN | {signing.VARIABLE}


def example() -> dict[str, str]:
    """The example's lines, the switched-off ones too."""
    pairs = re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", (DEPLOY / "env.example").read_text(), re.M)
    return dict(pairs)


def active_example() -> dict[str, str]:
    lines = (DEPLOY / "env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def commands() -> list[list[str]]:
    """Every command of ours that compose, the images and the units start."""
    found = [each["command"] for each in COMPOSE["services"].values() if "command" in each]
    for unit in UNITS:
        lines = re.findall(r"^Exec\w+=(.*)$", unit.read_text(), re.M)
        found += [["python", *shlex.split(line)[1:]] for line in lines]
    found += [
        yaml.safe_load(line.removeprefix("CMD "))
        for line in (DEPLOY / "Dockerfile").read_text().splitlines()
        if line.startswith("CMD ")
    ]
    ours = []
    for command in found:
        parts = (
            [shlex.split(each) for each in command[2].split("&&")]
            if command[:2] == ["sh", "-c"]
            else [command]
        )
        ours += [part for part in parts if part[0] == "python"]
    return ours


def test_every_variable_is_one_that_the_settings_read() -> None:
    assert set(example()) - COMPOSE_ONLY <= known_variables()
    assert len(active_example()) >= 8
    for name, service in COMPOSE["services"].items():
        if service.get("image", "").startswith("retort-"):
            told = {key for key, value in service.get("environment", {}).items() if value}
            assert told <= known_variables(), name
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) <= set(active_example())
    for unit in UNITS:
        for line in re.findall(r"^Environment=(.*)$", unit.read_text(), re.M):
            assert {each.split("=")[0] for each in line.split()} <= known_variables(), unit.name
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert set(re.findall(r"\b(RETORT_\w+)=", dockerfile)) <= known_variables()


def test_compose_tells_secrets_to_whom_they_concern() -> None:
    services = COMPOSE["services"]
    secret = re.compile("KEY|PASSWORD|SECRET|TOKEN")
    for name, service in services.items():
        assert not re.search(r"\$\{\w*(KEY|PASSWORD)", str(service.get("command", ""))), name
    told = active_example() | services["judge"]["environment"]
    assert {name for name, value in told.items() if secret.search(name) and value} == set()


def test_the_judge_has_no_way_to_the_key_that_signs_reports() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    [key] = re.findall(rf"\b{signing.VARIABLE}=(\S+)", dockerfile)
    folder = str(Path(key).parent)
    assert folder in yaml.safe_load(re.findall(r"^VOLUME (.*)$", dockerfile, re.M)[0])
    mounted = {
        name: [volume.split(":")[1] for volume in service.get("volumes", ())]
        for name, service in COMPOSE["services"].items()
    }
    holders = {name for name, places in mounted.items() if folder in places}
    assert holders == {"web", "worker-cpu", "worker-gpu"}
    assert not any(folder.startswith(f"{place}/") for place in mounted["judge"])


def test_compose_names_only_what_there_is() -> None:
    services = COMPOSE["services"]
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (DEPLOY / "Dockerfile").read_text(), re.M))
    assert {"web", "worker-cpu", "worker-gpu"} <= targets
    built = {each["image"] for each in services.values() if "build" in each}
    for name, service in services.items():
        if "build" in service:
            assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
            assert (ROOT / service["build"]["dockerfile"]).is_file()
            assert service["build"]["target"] in targets
        elif service["image"].startswith("retort-"):
            assert service["image"] in built, name
        assert set(service.get("depends_on", {})) <= set(services), name
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source != "./tls":  # whose files the administrator brings
                assert source in COMPOSE["volumes"] or (DEPLOY / source).is_file(), name
        for dependency, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[dependency]
    queues = ",".join(
        service["environment"]["RETORT_QUEUES"]
        for service in services.values()
        if "RETORT_QUEUES" in service.get("environment", {})
    )
    assert sorted(queues.split(",")) == ["cpu", "gpu", "judge", "upkeep"]


def test_every_command_is_a_real_one() -> None:
    """A command is known when its help is, and its options stand in that help."""
    seen = {tuple(each) for each in commands()}
    assert len(seen) >= 5
    for command in sorted(seen):
        if command[1:] == ("-m", "workers"):
            assert (ROOT / "workers" / "__main__.py").is_file()
            continue
        head = command[1:3]
        assert head[0] in ("-m", "manage.py"), command
        done = subprocess.run(
            [sys.executable, *head, "--help"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
        for option in command[3:]:
            if option.startswith("--"):
                assert option in done.stdout, (command, option)


def test_units_are_what_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed here")
    for unit in UNITS:
        # The units name where an installation lies; here it lies elsewhere.
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/retort", str(ROOT)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(map(str, tmp_path.iterdir()))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) not in done.stderr  # nor a warning about one of ours


def test_the_dockerfile_has_nothing_that_hadolint_minds() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [linter, "--no-color", DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_example_passes_djangos_deployment_checks(tmp_path: Path) -> None:
    keep = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")}
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]

    def check(**changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False,
            env=keep | active_example() | {"RETORT_VAR": str(tmp_path)} | changed,
        )  # fmt: skip

    clean = check()
    assert clean.returncode == 0, clean.stderr
    assert "no issues" in clean.stdout
    for name, value in (("SECRET_KEY", "short"), ("RETORT_HTTPS", "0"), ("DEBUG", "1")):
        assert check(**{name: value}).returncode != 0, name
