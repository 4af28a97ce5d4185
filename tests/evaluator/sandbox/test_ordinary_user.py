"""The sandbox without root: the same verdicts, with unprivileged user namespaces only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
HOSTILE = ROOT / "tests" / "golden" / "programs" / "hostile"
USER = 12345  # nobody's
SCRIPT = """
import json, os, sys
from pathlib import Path
from evaluator.sandbox.judge import judge
from evaluator.sandbox.problems import JudgeProblem, JudgeTest
problem = JudgeProblem("square", (JudgeTest("1", b"7\\n", b"49\\n"),), cpu_seconds=2.0)
found = {"uid": os.getuid(), "isolation": judge(problem, "python", "").isolation}
found["right"] = str(judge(problem, "python", "print(int(input()) ** 2)").verdict)
for name in sys.argv[1:]:
    path = Path(name)
    language = {".py": "python", ".cpp": "cpp"}[path.suffix]
    found[path.name] = str(judge(problem, language, path.read_text()).verdict)
print(json.dumps(found))
"""
NAMES = (
    "read_shadow.py", "write_root.py", "network_listen.py", "signal_parent.py", "memory_bomb.cpp",
    "fork_bomb.cpp", "include_shadow.cpp", "write_input.py", "hardlink_out.py", "new_namespace.cpp",
)  # fmt: skip


def as_user(*command: str) -> list[str]:
    return ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", *command]


@pytest.mark.skipif(os.getuid() != 0, reason="the other tests run as an ordinary user already")
def test_an_ordinary_user_gets_the_same_verdicts() -> None:
    python = shutil.which("python3", path="/usr/bin")
    readable = subprocess.run(as_user("test", "-r", str(HOSTILE)), check=False).returncode == 0
    if python is None or not readable:
        pytest.skip("another user cannot read this checkout or has no Python")
    packages = Path(yaml.__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, USER, USER)
        environment = {
            "PATH": "/usr/bin:/bin", "TMPDIR": folder, "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": f"{ROOT}:{packages}",
        }  # fmt: skip
        paths = [str(HOSTILE / name) for name in NAMES]
        done = subprocess.run(
            as_user(python, "-c", SCRIPT, *paths), env=environment, cwd="/", check=False,
            capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["uid"], found["isolation"], found["right"]) == (USER, "bubblewrap", "AC")
    for name in NAMES:
        allowed = (HOSTILE / name).read_text().partition("\n")[0].partition("expect: ")[2].split()
        assert found[name] in allowed, name
