"""The same work through inspect_ai, in its own virtual environment (see bench.harness).

``python bench/_inspect_peer.py URL LOGS SET…``; a set is ``NAME=PROBLEMS.jsonl*SAMPLES``. Its
scorer compares the boxed text as a string, which is less work than what ours does.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import inspect_ai
from inspect_ai import Epochs, Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import get_model
from inspect_ai.scorer import pattern
from inspect_ai.solver import generate


def main() -> None:
    """Draw and score every set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the endpoint, with /v1")
    parser.add_argument("logs", help="folder for the peer's own logs")
    parser.add_argument("sets", nargs="+", metavar="SET", help="NAME=PROBLEMS.jsonl*SAMPLES")
    options = parser.parse_args()
    url, logs = options.url, options.logs
    for each in options.sets:
        name, _, rest = each.partition("=")
        path, _, samples = rest.rpartition("*")
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        task = Task(
            name=name,
            dataset=MemoryDataset(
                [Sample(id=row["id"], input=row["problem"], target=row["answer"]) for row in rows]
            ),
            solver=generate(),
            scorer=pattern(r"\\boxed\{(.*)\}\$"),
            epochs=Epochs(int(samples)),
        )
        model = get_model("openai/stub", base_url=url, api_key="none", responses_api=False)
        [log] = inspect_ai.eval(
            task, model=model, display="none", log_dir=logs, max_connections=64,
            max_samples=64, temperature=0.6, top_p=0.95,
        )  # fmt: skip
        assert log.status == "success", log.error
        assert log.results is not None
        print(name, log.results.total_samples, log.results.completed_samples)


if __name__ == "__main__":
    main()
