"""What the sandbox costs, whether two cores help, and whether a loaded machine changes a verdict.

``python -m bench.sandbox`` (a minute); ``--load`` judges 200 submissions beside 0 and 8 busy loops
instead (some minutes) and keeps what the other measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from evaluator.sandbox import box, languages
from evaluator.sandbox.judge import judge
from evaluator.sandbox.languages import Program
from evaluator.sandbox.limits import Limits
from evaluator.sandbox.problems import JudgeProblem, JudgeTest

ROOT = Path(__file__).parents[1]
PROGRAMS = ROOT / "tests" / "golden" / "programs"
RESULT = Path(__file__).parent / "results" / "sandbox.json"
SUFFIXES = {".cpp": "cpp", ".py": "python"}
BUSY_LOOPS = 8
SUBMISSIONS = 200
PAIRS = 9
HELLO = {"cpp": '#include <cstdio>\nint main() { puts("x"); }', "python": 'print("x")'}
WORK = "s = 0\nfor i in range(2_000_000):\n    s += i * i\nprint(s)"
# PROTOCOLS §4's default limits: a memory bomb reaches the one well before the other.
PROBLEM = JudgeProblem("square", (JudgeTest("1", b"7\n", b"49\n"),))


def made(language: str, source: str) -> Program:
    program = languages.build(languages.get(language), source)
    assert isinstance(program, Program)
    return program


def limit_resources() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (4, 4))
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20))


def plain(program: Program) -> None:
    """The yardstick: a subprocess with limits and nothing else, its files prepared alike."""
    places = {f"{box.BOX}/{name}": str(path) for name, path in program.command.files.items()}
    line = [places.get(word, word) for word in program.command.arguments]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        subprocess.run(
            line, stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
            preexec_fn=limit_resources, check=True,
        )  # fmt: skip


def milliseconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def children_cpu(work: Callable[[], object], rounds: int = 20) -> float:
    """Milliseconds of CPU time of the processes, each time: what load does not change."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(rounds):
        work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used * 1000 / rounds


def overhead(rounds: int) -> list[dict[str, object]]:
    """Taken by turns, so that both see the same machine."""
    rows: list[dict[str, object]] = []
    for language, source in HELLO.items():
        program = made(language, source)
        times: dict[str, list[float]] = {"plain": [], "sandbox": []}
        for _ in range(rounds):
            times["plain"].append(milliseconds(partial(plain, program)))
            times["sandbox"].append(milliseconds(partial(box.execute, program.command, Limits())))
        cpu = {name: children_cpu(work) for name, work in (
            ("plain", partial(plain, program)),
            ("sandbox", partial(box.execute, program.command, Limits())),
        )}  # fmt: skip
        medians = {name: statistics.median(values) for name, values in times.items()}
        differences = [b - a for a, b in zip(times["plain"], times["sandbox"], strict=True)]
        rows.append(
            {"language": language, "rounds": rounds, **medians,
             "overhead_median": statistics.median(differences),
             "overhead_cpu": cpu["sandbox"] - cpu["plain"]}
        )  # fmt: skip
    return rows


def throughput(runs: int) -> dict[str, object]:
    """The same runs with one and two at a time, by turns; the median of the pairs' gains."""
    program = made("python", WORK)
    pairs = []
    for _ in range(PAIRS):
        seconds = []
        for jobs in (1, 2):
            with ThreadPoolExecutor(jobs) as threads:
                begin = time.perf_counter()
                list(threads.map(lambda _: box.execute(program.command, Limits()), range(runs)))
                seconds.append(time.perf_counter() - begin)
        pairs.append(seconds)
    gains = [one / two for one, two in pairs]
    return {"runs": runs, "seconds": pairs, "gain_median": statistics.median(gains)}


def submissions(count: int) -> list[Path]:
    """The hostile programs and those of one golden problem, again from the first as needed."""
    paths = sorted(p for p in PROGRAMS.glob("hostile/*") if p.suffix in SUFFIXES)
    paths += sorted(p for p in PROGRAMS.glob("problemtools.hello/*") if p.suffix in SUFFIXES)
    # A stride that is prime to their number: a smaller count still sees all kinds.
    return [paths[i * 37 % len(paths)] for i in range(count)]


def verdicts(count: int) -> list[str]:
    """The verdicts on all submissions, two at a time."""

    def one(path: Path) -> str:
        return str(judge(PROBLEM, SUFFIXES[path.suffix], path.read_text(), jobs=1).verdict)

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(one, submissions(count)))


def under_load(count: int) -> dict[str, object]:
    begin = time.perf_counter()
    calm = verdicts(count)
    middle = time.perf_counter()
    line = ["/usr/bin/python3", "-c", "while True: pass"]
    loops = [subprocess.Popen(line) for _ in range(BUSY_LOOPS)]
    try:
        loaded = verdicts(count)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    different = [
        f"{path.parent.name}/{path.name}: {a}, {b}"
        for path, a, b in zip(submissions(count), calm, loaded, strict=True)
        if a != b
    ]
    return {
        "submissions": len(calm), "busy_loops": BUSY_LOOPS, "different": different,
        "seconds_calm": middle - begin, "seconds_loaded": time.perf_counter() - middle,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--load", action="store_true", help="submissions beside 0 and 8 loops")
    parser.add_argument("--submissions", type=int, default=SUBMISSIONS)
    options = parser.parse_args()
    box.check_available()
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if options.load:
        result["load"] = under_load(options.submissions)
    else:
        result |= {
            "isolation": box.isolation(), "cores": os.cpu_count(),
            "load_before": os.getloadavg()[0], "overhead_ms": overhead(options.rounds),
            "throughput": throughput(options.runs),
        }  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
