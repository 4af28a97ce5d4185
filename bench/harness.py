"""What a harness itself costs, beside its peers: ``python -m bench.harness``.

A local endpoint answers each request after 20 ms with 8,000 characters (bench/_endpoint.py). AIME
2024 × 64, MATH-500 × 4 and GPQA-sized work (198 problems with a letter for an answer, × 8), 5,504
completions in all, are drawn and scored by

- ours: ``python -m evaluator run`` three times, everything kept on disk, graded and aggregated;
- bare: an aiohttp client and nothing else; bare+grading: the same and our graders, kept in memory;
- inspect_ai, in a virtual environment of its own under var/bench, scored by a string comparison.

Then ours with four times the samples, to see whether memory grows. Problems come from
../shared/data where present, else they are generated sums.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench._machine import ROOT, WORK, Cost, added, measured, write
from evaluator.benchmarks import arithmetic, files
from evaluator.records import Problem

INSPECT = ("inspect_ai==0.3.285", "openai==3.52.0")
DATA = ROOT.parent / "shared" / "data" / "benchmarks"
CONCURRENCY = 64


def problem_sets() -> dict[str, tuple[str, list[Problem], int]]:
    """Set -> (our benchmark, problems, samples); every problem's text names its number."""
    sums = [
        replace(problem, id=f"sum{number}")
        for number, problem in enumerate(arithmetic.generate(728, seed=1))
    ]
    aime, maths = sums[:30], sums[30:530]
    if DATA.is_dir():
        aime = files.read_problems(DATA / "aime2024.jsonl", "aime_2024")
        maths = files.read_problems(DATA / "math500.jsonl", "math_500")
    letters = [replace(p, answer="ABCD"[n % 4]) for n, p in enumerate(sums[530:])]
    sets = {
        "aime": ("aime_2024", aime, 64),
        "math": ("math_500", maths, 4),
        "gpqa-sized": ("math_500", letters, 8),
    }
    number = iter(range(728))
    return {
        name: (
            benchmark,
            [replace(p, problem=f"[#{next(number)}] {p.problem}") for p in problems],
            samples,
        )
        for name, (benchmark, problems, samples) in sets.items()
    }


@contextmanager
def endpoint(answers: list[str]) -> Iterator[str]:
    """The stub's base URL."""
    path = WORK / "answers.json"
    path.write_text(json.dumps(answers))
    process = subprocess.Popen(
        [sys.executable, "-m", "bench._endpoint", str(path)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.communicate()


def ours(url: str, work: dict[str, tuple[str, Path, int]], *, label: str) -> Cost:
    """Our command line, one process per set."""
    costs = []
    for name, (benchmark, path, samples) in work.items():
        out = WORK / f"run-{label}-{name}"
        subprocess.run(["rm", "-rf", out], check=True)
        command: list[object] = [
            sys.executable, "-m", "evaluator", "run", "--benchmark", benchmark, "--problems", path,
            "--engine", "openai", "--base-url", url, "--model", "stub", "--protocol", "r1",
            "--samples", samples, "--option", f"concurrency={CONCURRENCY}", "--jobs", 2,
            "--out", out,
        ]  # fmt: skip
        costs.append(measured(command, log=WORK / f"ours-{label}-{name}.log"))
        counts = json.loads((out / "metrics.json").read_text())["outcomes"]
        assert counts["correct"] > 0 < counts["wrong"]
        assert counts["engine_error"] == counts["grader_error"] == 0
        subprocess.run(["rm", "-rf", out], check=True)
    return added(costs)


def inspect_python() -> Path:
    """The peer's interpreter; its environment is made on first use."""
    folder = WORK / "inspect_ai"
    if not (folder / ".done").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", *INSPECT]
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
        (folder / ".done").touch()
    return folder / "bin" / "python"


def main() -> None:
    """Measure all, print a table, keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["ours", "bare", "inspect_ai"], help="and write nothing")
    only = parser.parse_args().only
    WORK.mkdir(parents=True, exist_ok=True)
    sets = problem_sets()
    work: dict[str, tuple[str, Path, int]] = {}
    for name, (benchmark, problems, samples) in sets.items():
        path = WORK / f"{name}.jsonl"
        path.write_text("".join(json.dumps(p.to_json()) + "\n" for p in problems))
        work[name] = (benchmark, path, samples)
    answers = [problem.answer for _, problems, _ in sets.values() for problem in problems]
    words = [f"{benchmark}={path}*{samples}" for benchmark, path, samples in work.values()]
    total = sum(len(problems) * samples for _, problems, samples in sets.values())
    costs: dict[str, Cost] = {}
    with endpoint(answers) as url:
        bare = [sys.executable, "-m", "bench._bare", url, *words]
        if only in (None, "bare"):
            costs["bare"] = measured(bare, log=WORK / "bare.log")
            costs["bare+grading"] = measured([*bare, "--grade"], log=WORK / "graded.log")
        if only in (None, "ours"):
            costs["ours"] = ours(url, work, label="1")
            more = {name: (b, path, 4 * n) for name, (b, path, n) in work.items()}
            costs["ours, 4 × samples"] = ours(url, more, label="4")
        if only in (None, "inspect_ai"):
            peer = [inspect_python(), "bench/_inspect_peer.py", url, WORK / "logs", *words]
            costs["inspect_ai"] = measured(peer, log=WORK / "inspect_ai.log")
    print(f"{total} completions")
    for name, cost in costs.items():
        print(f"{name:20}{cost.wall_seconds:9.1f} s wall{cost.cpu_seconds:9.1f} s CPU"
              f"{cost.peak_mib:9.0f} MiB")  # fmt: skip
    if only is None:
        write("harness", summary(total, costs), packages=("aiohttp", "zstandard", "sympy"))


def summary(total: int, costs: dict[str, Cost]) -> dict[str, Any]:
    """The costs and how they compare."""
    mine, peer, floor = costs["ours"], costs["inspect_ai"], costs["bare+grading"]
    return {
        "completions": total,
        "concurrency": CONCURRENCY,
        "peers": list(INSPECT),
        "real_problems": DATA.is_dir(),
        "costs": costs,
        "share_of_inspect_ai": {
            "wall": round(mine.wall_seconds / peer.wall_seconds, 3),
            "cpu": round(mine.cpu_seconds / peer.cpu_seconds, 3),
        },
        "times_bare_and_grading": {
            "wall": round(mine.wall_seconds / floor.wall_seconds, 2),
            "cpu": round(mine.cpu_seconds / floor.cpu_seconds, 2),
        },
    }


if __name__ == "__main__":
    main()
