"""Where a supervisor has its leases: a seam with two sides.

Workers of trusted queues use webapp.runs.leases; workers of the judge queue, who hold a database
role that can do next to nothing, use workers.judging.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from webapp.runs.leases import Claim
from webapp.runs.ledger import Usage
from webapp.runs.models import Stage


class Office(Protocol):
    """What a supervisor asks for; webapp.runs.leases says what each means."""

    def claim(
        self, worker: str, queues: Sequence[str], *, sticky: int | None = None
    ) -> Claim | None:
        """Lease the next shard by the claim order."""
        ...

    def renew(self, claim: Claim) -> bool:
        """Prolong the lease; False when it is lost."""
        ...

    def is_held(self, claim: Claim) -> bool:
        """Whether the lease still holds."""
        ...

    def record_usage(self, claim: Claim, usage: Usage) -> None:
        """Note what the lease has taken so far, for the ledger; nothing when it is lost."""
        ...

    def show_log(self, claim: Claim, log_tail: str) -> None:
        """Show the child's last lines while it works; nothing when the lease is lost."""
        ...

    def release_shard(self, claim: Claim) -> None:
        """Give the shard back untried."""
        ...

    def write_spec(self, stage: Stage, device: str) -> Path:
        """Write the child's configuration; returns its path."""
        ...

    def engine_ready(self, claim: Claim, engine: Mapping[str, Any]) -> None:
        """The child has loaded what it needs."""
        ...

    def record_progress(
        self, claim: Claim, *, done: int, total: int, unit: str, tokens: int
    ) -> None:
        """Set the progress. Raises LeaseLostError."""
        ...

    def accept_segment(self, claim: Claim, *, name: str, size_bytes: int, sha256: str) -> None:
        """Make a sealed segment count. Raises LeaseLostError or StoreError."""
        ...

    def add_training_point(self, claim: Claim, *, step: int, values: Mapping[str, float]) -> None:
        """Log a training step."""
        ...

    def finish_shard(self, claim: Claim, result: Mapping[str, Any]) -> None:
        """The shard is done. Raises LeaseLostError."""
        ...

    def fail_shard(
        self, claim: Claim, sentence: str, *, transient: bool, log_tail: str = ""
    ) -> None:
        """The shard failed: try again later, or fail the run."""
        ...
