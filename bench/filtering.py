"""What filtering traces costs: ``python -m bench.filtering``.

Synthetic traces (four to a problem, about 3,000 characters of thoughts each, a fifth of them wrong,
looping, cut off, of mixed language, badly formed or near copies) go through ``python -m distiller
filter`` with the default recipe: 10,000 and 100,000 of them with one process, 100,000 with two.
Reported are traces per second, the speed-up, and the largest process's peak memory.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench._machine import WORK, Cost, measured, write

FOLDER = WORK / "filtering"
SAMPLES = 4
TEXT = """
    we need the sum of all terms in this row and then compare it with that which is known from
    before so let us write each part down check whether both sides agree take their difference
    divide by two because every pair counts twice note that only odd values remain here hence
"""
WORDS = TEXT.split()
CHINESE = "我们需要把每一项都加起来然后再检查一遍结果是否正确"


def problem(number: int) -> tuple[dict[str, str], int]:
    """A problem and its answer; a word of its own keeps it apart from the others."""
    pick = random.Random(number)
    first, second, third = (pick.randrange(10, 1000) for _ in range(3))
    names = " ".join(f"{pick.choice(WORDS)}{pick.randrange(999)}" for _ in range(12))
    text = f"In the story of {names}: what is {first} + {second} * {third}?"
    answer = first + second * third
    return {"id": f"p{number}", "problem": text, "answer": str(answer)}, answer


def thoughts(pick: random.Random, answer: int) -> str:
    """Sentences with a formula here and there, about 3,000 characters."""
    lines = []
    for _ in range(40):
        words = " ".join(pick.choices(WORDS, k=pick.randrange(8, 16)))
        formula = f" $x_{{{pick.randrange(99)}}} = {pick.randrange(answer + 1)}$"
        lines.append(words.capitalize() + (formula if pick.random() < 0.3 else "") + ".")
    return "\n".join(lines)


def trace(number: int, sample: int, answer: int, before: str) -> dict[str, Any]:
    """One trace; ``before`` is the thoughts of the problem's last one."""
    pick = random.Random(number * SAMPLES + sample)
    chain = thoughts(pick, answer)
    fault = pick.choices(
        ["none", "wrong", "loop", "cut", "mixed", "format", "near"], [80, 8, 3, 3, 2, 2, 2]
    )[0]
    if fault == "loop":
        chain += "\nWait, let us check this once more." * 40
    elif fault == "mixed":
        chain += "".join(pick.choices(CHINESE, k=200))
    elif fault == "near":
        chain = before.replace("because", "since", 1)
    text = (
        f"<think>\n{chain}\n</think>\n\nThe answer is $\\boxed{{{answer + (fault == 'wrong')}}}$."
    )
    if fault == "cut":
        text = text[: len(chain) // 2]
    elif fault == "format":
        text = text.replace("</think>", "</think>\n</think>")
    finish = "length" if fault == "cut" else "stop"
    return {
        "problem_id": f"p{number}",
        "sample": sample,
        "completion": text,
        "finish_reason": finish,
    }


def traces_of(number: int, answer: int) -> Iterator[dict[str, Any]]:
    """All samples of a problem."""
    before = "We begin."
    for sample in range(SAMPLES):
        row = trace(number, sample, answer, before)
        before = row["completion"].removeprefix("<think>\n").partition("\n</think>")[0]
        yield row


def generated(count: int) -> tuple[Path, Path]:
    """Files of ``count`` traces and their problems, made unless they are there."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    traces, problems = FOLDER / f"traces-{count}.jsonl", FOLDER / f"problems-{count}.jsonl"
    if not traces.exists():
        part = traces.with_suffix(".part")
        with part.open("w") as rows, problems.open("w") as asked:
            for number in range(count // SAMPLES):
                row, answer = problem(number)
                asked.write(json.dumps(row) + "\n")
                for each in traces_of(number, answer):
                    rows.write(json.dumps(each, ensure_ascii=False) + "\n")
        part.replace(traces)
    return traces, problems


def filtered(count: int, jobs: int) -> tuple[Cost, dict[str, Any]]:
    """The cost of filtering, with what was found."""
    traces, problems = generated(count)
    out = FOLDER / f"out-{count}-{jobs}"
    cost = measured(
        [sys.executable, "-m", "distiller", "filter", "--traces", traces, "--problems", problems,
         "--out", out, "--jobs", jobs],
        log=FOLDER / "log.txt",
    )  # fmt: skip
    return cost, json.loads((out / "funnel.json").read_text())


def main() -> None:
    """Measure and keep the result."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=100_000, help="traces of the long runs")
    count = options.parse_args().count
    runs = {}
    for traces, jobs in ((count // 10, 1), (count, 1), (count, 2)):
        cost, funnel = filtered(traces, jobs)
        runs[f"{traces} traces, {jobs} jobs"] = {
            "cost": cost,
            "traces_per_second": round(traces / cost.wall_seconds, 1),
            "traces_per_cpu_second": round(traces / cost.cpu_seconds, 1),
            "kept": funnel["kept"],
            "reasons": funnel["reasons"],
        }
        print(traces, jobs, cost, funnel["reasons"], flush=True)
    small, one, two = runs.values()
    bytes_of = generated(count)[0].stat().st_size
    write(
        "filtering",
        {
            "runs": runs,
            "speed_up_of_two_processes": round(
                two["traces_per_second"] / one["traces_per_second"], 2
            ),
            "peak_mib_of_ten_times_the_traces": round(
                one["cost"].peak_mib / small["cost"].peak_mib, 2
            ),
            "mean_trace_bytes": round(bytes_of / count),
        },
        packages=["numpy", "datasketch", "pydantic"],
    )


if __name__ == "__main__":
    main()
