"""A run in a folder: what the command line keeps, without a database.

``run.json`` the whole configuration · ``problems.jsonl`` · ``segments/`` completions
(``evaluator.store``) · ``grades.jsonl`` · ``metrics.json`` · ``contests.json``, what programs are
rated by (may come later: it changes no verdict). A folder is one measurement: going on
with another configuration is refused.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluator import __version__, benchmarks, graders, passport, report, runner
from evaluator.diagnostics import Diagnostics, diagnose
from evaluator.engines import Engine
from evaluator.errors import InputError
from evaluator.graders.pool import GraderPool
from evaluator.passport import Passport
from evaluator.protocol import Protocol
from evaluator.records import (
    Completion,
    Outcome,
    Problem,
    canonical_json,
    problems_hash,
)
from evaluator.run_rating import Yardstick
from evaluator.store import Row, Store, write_durably

# What has to be the same for two sittings to be one run.
_CONFIGURATION = ("benchmark", "problems_hash", "protocol", "samples", "engine", "checkpoint")


class LocalRun:
    """One evaluation in ``folder``; :meth:`begin` makes it, :meth:`open` reads it."""

    def __init__(self, folder: Path, config: Mapping[str, Any], problems: list[Problem]) -> None:
        self.folder = folder
        self.config = dict(config)
        self.problems = problems
        self.protocol = Protocol.model_validate(config["protocol"])
        self.benchmark = benchmarks.get(config["benchmark"])
        self.samples = int(config["samples"])
        self.prompt = self.protocol.prompt or self.benchmark.prompt
        self.store = Store(folder / "segments")

    @classmethod
    def begin(
        cls,
        folder: Path,
        *,
        benchmark: str,
        problems: list[Problem],
        protocol: Protocol,
        samples: int,
        engine: Mapping[str, Any],
        checkpoint: str,
    ) -> LocalRun:
        """Make the folder, or go on with it if its configuration is the same.

        ``engine`` is what the engine says of itself. Raises InputError naming the first field that
        differs.
        """
        config = {
            "version": __version__,
            "benchmark": benchmarks.get(benchmark).name,
            "problems_hash": problems_hash(problems),
            "protocol": protocol.model_dump(mode="json"),
            "samples": samples,
            "engine": dict(engine),
            "checkpoint": checkpoint,
        }
        if (folder / "run.json").exists():
            run = cls.open(folder)
            for field in _CONFIGURATION:
                if canonical_json(run.config[field]) != canonical_json(config[field]):
                    raise InputError(
                        f"out: {folder} holds a run with another {field}; choose a new folder."
                    )
            return run
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"out: {folder} holds other files; choose a new folder.")
        folder.mkdir(parents=True, exist_ok=True)
        write_json_lines(folder / "problems.jsonl", [problem.to_json() for problem in problems])
        write_json(folder / "run.json", config)
        return cls(folder, config, problems)

    @classmethod
    def open(cls, folder: Path) -> LocalRun:
        """Read the run in ``folder``; raises InputError if there is none."""
        path = folder / "run.json"
        if not path.is_file():
            raise InputError(f"{folder}: no run is in it (there is no run.json).")
        try:
            config = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error}).") from error
        return cls(folder, config, runner.load_problems(folder / "problems.jsonl"))

    @property
    def total(self) -> int:
        """Completions asked for."""
        return len(self.problems) * self.samples

    @property
    def passport(self) -> Passport:
        """What stands beside this run's score (PROTOCOLS §1)."""
        return passport.make(
            self.protocol,
            benchmark=self.benchmark.name,
            problems_hash=self.config["problems_hash"],
            samples=self.samples,
            engine=self.config["engine"],
        )

    @property
    def measurement_hash(self) -> str:
        """What makes this run's score comparable."""
        return self.passport.measurement_hash

    @property
    def run_fingerprint(self) -> str:
        """What else could move a figure a little."""
        return self.passport.run_fingerprint

    def rate_by(self, yardstick: Yardstick) -> None:
        """Keep what the programs are rated by, in place of what was kept."""
        write_json(self.folder / "contests.json", yardstick.to_json())

    @property
    def yardstick(self) -> Yardstick:
        """What the programs are rated by: no contests where none were given."""
        path = self.folder / "contests.json"
        return Yardstick.from_json(json.loads(path.read_text())) if path.is_file() else Yardstick()

    def rating(self, rows: Sequence[Row]) -> dict[str, Any]:
        """``{"rating": …}`` of graded rows for metrics.json; nothing where nothing is rated."""
        if not graders.get(self.benchmark.grader).untrusted:
            return {}
        ids = {problem.id for problem in self.problems}
        found = self.yardstick.rate(rows, problem_ids=ids, samples=self.samples)
        return {"rating": found}

    def discard_if_empty(self) -> None:
        """Take the folder back while nothing has been drawn, so that nothing half-made is left."""
        if any(self.store.folder.iterdir()):
            return
        self.store.folder.rmdir()
        for name in ("run.json", "problems.jsonl", "contests.json"):
            (self.folder / name).unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def draw(
        self,
        engine: Engine,
        on_progress: runner.Progress,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> None:
        """Draw what is missing; ``on_completion`` gets what an earlier sitting drew, too."""
        done = set()
        for row in self.store.rows():
            if row.get("error") is None:
                done.add((row["problem_id"], row["sample"]))
                if on_completion is not None:
                    on_completion(Completion.from_json(row))
        with self.store.writer(journal=True) as writer:
            rendered = runner.draw(
                self.problems,
                prompt=self.prompt,
                protocol=self.protocol,
                samples=self.samples,
                engine=engine,
                writer=writer,
                done=done,
                on_progress=on_progress,
                on_completion=on_completion,
            )
        write_durably(self.folder / "rendered_prompt.txt", rendered.encode())

    def grade(
        self, pool: GraderPool, *, on_row: Callable[[Row], None], graded: Sequence[Row] = ()
    ) -> dict[str, Any]:
        """Grade what ``graded`` holds no verdict of; write grades.jsonl and metrics.json.

        ``graded`` was read as :meth:`as_served` says. Returns the metrics.
        """
        protocol = self.as_served(self.protocol)
        grades = [row for row in graded if not Outcome(row["outcome"]).is_error]

        def keep(row: Row) -> None:
            grades.append(row)
            on_row(row)

        metrics = runner.grade(
            self.problems,
            self.store.rows(),
            benchmark=self.benchmark,
            protocol=protocol,
            samples=self.samples,
            pool=pool,
            passport=self.passport,
            on_row=keep,
            graded=tuple(grades),
        )
        metrics |= self.rating(grades)
        write_json_lines(self.folder / "grades.jsonl", grades)
        write_json(self.folder / "metrics.json", metrics)
        return metrics

    def as_served(self, protocol: Protocol) -> Protocol:
        """``protocol`` as this run's completions are to be read (:func:`runner.as_served`)."""
        return runner.as_served(
            protocol, engine=self.config["engine"], completions=self.store.rows()
        )

    def first_error(self) -> str | None:
        """Why a sample has no completion; None where every one came."""
        return next((row["error"] for row in self.store.rows() if row.get("error")), None)

    def report_data(
        self, *, generated_at: str, per_outcome: int = 3, private_texts: bool = False
    ) -> dict[str, Any]:
        """What ``evaluator.report`` makes a page of; raises InputError before the run is graded.

        A private benchmark's texts are left out unless ``private_texts``.
        """
        metrics_path = self.folder / "metrics.json"
        if not metrics_path.is_file():
            raise InputError(f"{self.folder}: the run is not graded yet; finish it with `run`.")
        grades = self.grades()
        rendered = self.folder / "rendered_prompt.txt"
        data = {
            "title": f"{self.benchmark.title}: {Path(self.config['checkpoint']).name}",
            "checkpoint": Path(self.config["checkpoint"]).name,
            "benchmark": self.benchmark.title,
            "protocol": self.config["protocol"],
            "engine": self.config["engine"],
            "metrics": json.loads(metrics_path.read_text()),
            "diagnostics": self.diagnostics(grades).to_json(),
            "rendered_prompt": rendered.read_text() if rendered.exists() else "",
            "samples": self._samples(grades, per_outcome),
            "generated_at": generated_at,
            "version": self.config["version"],
            "measurement_hash": self.measurement_hash,
            "run_fingerprint": self.run_fingerprint,
        }
        hide = self.benchmark.private and not private_texts
        return report.without_texts(data) if hide else data

    def diagnostics(self, grades: Sequence[Row]) -> Diagnostics:
        """What a reader of the score must know of how the completions ended, and how long."""
        outcomes = {(row["problem_id"], row["sample"]): row["outcome"] for row in grades}
        rows = (
            {
                "problem_id": row["problem_id"],
                "outcome": outcomes.pop(key),
                "finish_reason": row["finish_reason"],
                "completion_tokens": row["completion_tokens"],
            }
            for row in self.store.rows()
            if (key := (row["problem_id"], row["sample"])) in outcomes
            and (row["error"] is None or outcomes[key] == Outcome.ENGINE_ERROR)
        )
        return diagnose(rows, protocol=self.protocol, engine=self.config["engine"])

    def grades(self) -> list[Row]:
        """The verdicts of the graded run."""
        lines = (self.folder / "grades.jsonl").read_text("utf-8").split("\n")
        return [json.loads(line) for line in lines if line]

    def _samples(self, grades: Sequence[Row], per_outcome: int) -> list[Row]:
        """The first few completions of each outcome, with their texts."""
        chosen: dict[tuple[str, int], Row] = {}
        for outcome in Outcome:
            of_outcome = [row for row in grades if row["outcome"] == outcome]
            of_outcome.sort(key=lambda row: (row["sample"], row["problem_id"]))
            for row in of_outcome[:per_outcome]:
                chosen[row["problem_id"], row["sample"]] = row
        known = runner.by_id(self.problems)
        texts: dict[tuple[str, int], str] = defaultdict(str)
        for row in self.store.rows():
            if (key := (row["problem_id"], row["sample"])) in chosen:
                texts[key] = row["text"]
        return [
            {
                "problem_id": problem_id,
                "problem": known[problem_id].problem,
                "gold": known[problem_id].answer,
                "sample": sample,
                "outcome": row["outcome"],
                "answer": row["answer"],
                "judged": row.get("judged"),
                "text": texts[problem_id, sample],
            }
            for (problem_id, sample), row in chosen.items()
        ]


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as readable JSON, whole or not at all."""
    write_durably(path, _encoded(json.dumps(value, indent=2, ensure_ascii=False) + "\n"))


def write_json_lines(path: Path, rows: Sequence[Any]) -> None:
    """Write rows as JSON lines, whole or not at all."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_durably(path, _encoded(lines))


def _encoded(text: str) -> bytes:
    """JSON text as UTF-8; a lone surrogate becomes its JSON escape."""
    return text.encode(errors="backslashreplace")
