r"""Verdicts per CPU second and agreement, beside math-verify called plainly; caches off.

``python -m bench.grading`` measures three sets: integer answers made from a seed, the real pairs
and the other graders' cases of ../shared/data/grading (left out where that folder is absent). Each
side runs in a process of its own; its CPU time includes its imports and its children.

``bench/results/grading.json`` keeps the figures; ``grading_differences.md`` lists every verdict
that differs from the published one, with its reason.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench._grading_reasons import reason
from bench._machine import RESULTS, ROOT, WORK, Cost, measured, write

DATA = ROOT.parent / "shared" / "data" / "grading"
INTEGERS = 4000
WHOLE_RESPONSES = ("math_reasoning", "mc_letters")


def integer_rows() -> list[dict[str, Any]]:
    """Integers from 0 to 999 with answers as models write them; half are right."""
    source = random.Random(7)
    forms = ("{n}", "{n:03d}", "n = {n}", "{n}.0", "${n}$", "\\text{{{n}}}")
    rows = []
    for number in range(INTEGERS):
        gold = source.randrange(1000)
        right = source.random() < 0.5
        answer = gold if right else (gold + source.randrange(1, 999)) % 1000
        text = source.choice(forms).format(n=answer)
        rows.append(
            {"id": number, "kind": "integer", "gold": str(gold), "prediction": text, "right": right}
        )
    return rows


def real_rows() -> list[dict[str, Any]]:
    """Real models' answers with published verdicts."""
    rows = _rows("real_pred_verdicts.jsonl")
    return [
        {"id": row["id"], "kind": "math", "gold": row["gold"],
         "prediction": row["prediction"] or "", "right": row["published_verdict"]}
        for row in rows
    ]  # fmt: skip


def case_rows() -> list[dict[str, Any]]:
    """Other graders' own cases; what their suites disagree about is left out."""
    kept = []
    for row in _rows("grading_cases.jsonl"):
        if row.get("suites_disagree"):
            continue
        field = "completion" if row["kind"] in WHOLE_RESPONSES else "prediction"
        kind = "choice" if row["kind"] == "mc_letters" else "math"
        kept.append(
            {"id": row["id"], "kind": kind, "gold": row["gold"], field: row["prediction"],
             "right": row["expected"], "peer": row.get("math_verify_0.9.0")}
        )  # fmt: skip
    return kept


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def ours(rows: list[dict[str, Any]]) -> list[bool]:
    """Our verdicts, one after the other, nothing remembered."""
    from evaluator.graders.pool import GradeRequest, GraderPool
    from evaluator.protocol import GradingPolicy, Thinking
    from evaluator.records import Completion, Outcome

    requests = [
        GradeRequest(
            kind=row["kind"],
            gold=row["gold"],
            prediction=row.get("prediction"),
            completion=Completion("", 0, row["completion"]) if "completion" in row else None,
            thinking=Thinking(kind="tags"),
            policy=GradingPolicy(),
        )
        for row in rows
    ]
    with GraderPool(jobs=1, cache_entries=0) as pool:
        return [verdict.outcome is Outcome.CORRECT for verdict in pool.grade(requests)]


def plain(rows: list[dict[str, Any]]) -> list[bool]:
    """math-verify as its own page shows it."""
    from math_verify import parse, verify

    return [
        bool(verify(parse(f"${row['gold']}$"), parse(f"${row['prediction']}$"))) for row in rows
    ]


def child(side: str, source: str, output: str) -> None:
    """Grade a file in this process."""
    rows = json.loads(Path(source).read_text())
    verdicts = {"ours": ours, "math-verify": plain}[side](rows)
    Path(output).write_text(json.dumps(verdicts))


def one_set(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Cost and agreement of both sides on one set."""
    WORK.mkdir(parents=True, exist_ok=True)
    source = WORK / f"{name}.json"
    source.write_text(json.dumps(rows))
    result: dict[str, Any] = {"rows": len(rows)}
    for side in ("ours", "math-verify"):
        output = WORK / f"{name}-{side}.json"
        command = [sys.executable, "-m", "bench.grading", "--child", side, source, output]
        cost: Cost = measured(command, log=WORK / f"{name}-{side}.log")
        verdicts = json.loads(output.read_text())
        agreeing = sum(v == row["right"] for v, row in zip(verdicts, rows, strict=True))
        result[side] = {
            **asdict(cost),
            "verdicts_per_cpu_second": round(len(rows) / cost.cpu_seconds, 1),
            "agreeing": agreeing,
            "agreement": round(agreeing / len(rows), 4),
        }
    speeds = [result[side]["verdicts_per_cpu_second"] for side in ("ours", "math-verify")]
    result["times_as_fast"] = round(speeds[0] / speeds[1], 1)
    return result


def cases_result(rows: list[dict[str, Any]], verdicts: list[bool]) -> dict[str, Any]:
    """Agreement with other graders' expectations; the peer's verdicts stand in the file."""
    both = [
        (verdict == row["right"], row["peer"] == row["right"])
        for row, verdict in zip(rows, verdicts, strict=True)
        if row["peer"] is not None
    ]
    return {
        "rows": len(rows),
        "ours_agreeing": sum(v == row["right"] for row, v in zip(rows, verdicts, strict=True)),
        "rows_with_math_verify": len(both),
        "ours_agreeing_there": sum(mine for mine, _ in both),
        "math_verify_agreeing_there": sum(theirs for _, theirs in both),
    }


def differences(title: str, rows: list[dict[str, Any]], verdicts: list[bool]) -> list[str]:
    """A table of the rows whose verdict differs from the published one."""
    lines = [f"## {title}", "", "| row | gold | answer | published | ours | reason |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for row, verdict in zip(rows, verdicts, strict=True):
        if verdict != row["right"]:
            answer = str(row.get("prediction", row.get("completion")))
            words = ("right" if row["right"] else "wrong", "right" if verdict else "wrong")
            cells = [row["id"], _cell(row["gold"]), _cell(answer), *words]
            lines.append(f"| {' | '.join(cells)} | {reason(row['gold'], answer, verdict)} |")
    return [*lines, ""]


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|").replace("`", "'")
    return f"`{text if len(text) <= 90 else '… ' + text[-88:]}`"


def main() -> None:
    """Measure all, print it and keep the result; or be one side's process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--child", nargs=3, metavar=("SIDE", "SOURCE", "OUTPUT"), help=argparse.SUPPRESS
    )
    if (asked := parser.parse_args().child) is not None:
        child(*asked)
        return
    sets = {"integers": one_set("integers", integer_rows())}
    if DATA.is_dir():
        real, cases = real_rows(), case_rows()
        sets["real pairs"] = one_set("real", real)
        verdicts = json.loads((WORK / "real-ours.json").read_text())
        case_verdicts = ours(cases)
        sets["other graders' cases"] = cases_result(cases, case_verdicts)
        text = ["# Verdicts that differ from the published ones", "",
                "Made by `python -m bench.grading`. Policies are explained in docs/grading.md.", "",
                *differences("Other graders' cases", cases, case_verdicts),
                *differences("Real answers", real, verdicts)]  # fmt: skip
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "grading_differences.md").write_text("\n".join(text))
    print(json.dumps(sets, indent=2))
    packages = ("math-verify", "latex2sympy2_extended", "sympy", "mpmath")
    write("grading", {"sets": sets}, packages=packages)


if __name__ == "__main__":
    main()
