"""The process that compares answers by evaluation: ``python -m evaluator.graders.worker``.

One JSON line in, one JSON line out. The kernel ends this process when a comparison has used its
CPU time, however deep in a library it is, and refuses memory above the limit. It has no network
where the kernel grants an unprivileged namespace, and it cannot write files.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from typing import Any

from evaluator import graders
from evaluator.errors import GraderError, UndecidedError
from evaluator.protocol import GradingPolicy

MAX_FAULT_CHARACTERS = 300
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def main() -> int:
    """Serve comparisons until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    limits = json.loads(sys.argv[1])
    _confine(int(limits["memory_bytes"]))
    # Imports and first use are paid here, so that they count against no comparison. Where this
    # fails, the process ends: it is no comparison's fault.
    graders.get("math").equal_slow("x<1", "-x>-1", GradingPolicy())
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        print(
            json.dumps(_compare(json.loads(line), limits["cpu_seconds"])), file=answers, flush=True
        )
    return 0


def _confine(memory_bytes: int) -> None:
    """Limit memory, forbid writing, leave the network."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Refused by kernels without user namespaces; then the empty environment has to do.
    ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _compare(request: dict[str, Any], cpu_seconds: float) -> dict[str, Any]:
    """Compare one pair under the CPU limit; SIGPROF's default action ends the process."""
    grader = graders.get(request["kind"])
    policy = GradingPolicy.model_validate(request["policy"])
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    started = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        verdict: dict[str, Any] = {
            "equal": grader.equal_slow(request["first"], request["second"], policy)
        }
    except UndecidedError as error:
        verdict = {"equal": False, "undecided": str(error)}
    except (GraderError, MemoryError, RecursionError) as error:
        verdict = {"error": str(error) or type(error).__name__}
    except Exception as error:  # a fault of this program: told, and never a verdict
        verdict = {"fault": f"{type(error).__name__}: {error}"[:MAX_FAULT_CHARACTERS]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return {**verdict, "cpu_seconds": time.process_time() - started}


if __name__ == "__main__":
    sys.exit(main())
