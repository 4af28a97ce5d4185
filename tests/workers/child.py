"""A stage's child that needs no model: `child.py HOW SPEC`. It speaks through evaluator.child."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluator.child import Reporter, ShardRequest, Spec, serve
from evaluator.records import Completion, FinishReason, completion_seed
from evaluator.store import SealedSegment, SegmentWriter, read_segment

HOW = sys.argv[1]


class BrokenError(Exception):
    transient = False


class FlakyError(Exception):
    transient = True


class Draw:
    """Writes a completion per key, a segment per problem, at most one problem each ``pause``."""

    def __init__(self, spec: Spec, report: Reporter) -> None:
        self.spec = spec
        self.folder = Path(spec["segments_folder"])
        report.ready(name="scripted", how=HOW)

    def run(self, request: ShardRequest, report: Reporter) -> Mapping[str, Any]:
        print("environment:", " ".join(sorted(os.environ)), file=sys.stderr)
        print("key:", os.environ.get("RETORT_ENDPOINT_KEY"), file=sys.stderr)
        misbehave(self.folder)
        samples = self.spec["protocol"]["samples"]
        ids = list(request.work["problem_ids"])
        done = {
            (row["problem_id"], row["sample"])
            for name in request.accepted
            for _, row in read_segment(self.folder / name)
        }
        drawn = 0
        writer = SegmentWriter(self.folder, prefix=request.prefix, on_seal=self.seal(report))
        for number, problem_id in enumerate(ids, 1):
            for sample in range(samples):
                if (problem_id, sample) not in done:
                    seed = completion_seed(0, problem_id, sample)
                    row = Completion(
                        problem_id, sample, f"{problem_id} {seed}", FinishReason.STOP,
                        completion_tokens=3, seed=seed,
                    )  # fmt: skip
                    writer.append(row.to_json())
                    drawn += 1
            writer.seal()
            report.usage(prompt_tokens=2 * drawn, completion_tokens=3 * drawn, uncounted=0)
            report.progress(
                number * samples, len(ids) * samples, unit="completions", tokens=number * 3
            )
            time.sleep({"slow": 0.05, "storm": 0.25}.get(HOW, 0.0))
        return {"rendered_prompt": "What is\x00 it?"}

    def seal(self, report: Reporter) -> Callable[[SealedSegment], None]:
        """Report a segment; in a storm, tear it first where it is asked for."""

        def announce(sealed: SealedSegment) -> None:
            asked = self.folder.parents[3].parent / "control" / "tear"
            if HOW == "storm" and asked.exists():
                asked.unlink(missing_ok=True)
                path = self.folder / sealed.name
                path.write_bytes(path.read_bytes()[:-7])
            report.segment(sealed)

        return announce


def misbehave(folder: Path) -> None:
    match HOW:
        case "broken":
            raise BrokenError("model: the tensor is bent; straighten it.")
        case "blabs":
            raise BrokenError(f"{os.environ['RETORT_ENDPOINT_KEY']} was refused")
        case "flaky":
            raise FlakyError("engine: the line was dropped.")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "memory":
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
            bytearray(2 << 30)
        case "hoard":
            raise BrokenError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        case "silent":
            time.sleep(600)
        case "exits":
            sys.stderr.write("the last words\n")
            os._exit(3)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            (folder / "group").write_text(str(os.getpgrp()))
            time.sleep(600)


if __name__ == "__main__":
    if HOW == "deaf":
        (Path(sys.argv[2]).parent / "group").write_text(str(os.getpgrp()))
        os.kill(os.getpid(), signal.SIGSTOP)
    sys.exit(serve(Path(sys.argv[2]), {"evaluate": Draw}))
