"""What a lease takes, noted while it is held: its end writes it into the ledger."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from webapp.runs.leases import Claim
from webapp.runs.ledger import Usage
from workers.children import Child
from workers.offices import Office

logger = logging.getLogger(__name__)


class Meter:
    """The office of one child's shards, which notes what a lease took before it is ended.

    The first shard bears what loading the model took.
    """

    def __init__(self, office: Office, child: Child, devices: Sequence[str]) -> None:
        self.office = office
        self._child = child
        self._before = 0.0  # CPU seconds of the child that earlier leases have borne
        self._seen = 0.0  # the most that was read: descendants may vanish unaccounted
        self._usage = Usage(devices=len(devices))
        self._changing = threading.Lock()  # a heartbeat notes, too

    def begin(self, claim: Claim) -> None:
        """A shard is about to be fed to the child."""
        self._before = self._seen
        self._usage = Usage(devices=self._usage.devices)
        if self._usage.devices:  # should this worker be killed, the devices' time is known
            self.office.record_usage(claim, self._usage)

    def tokens(self, event: Mapping[str, Any]) -> None:
        """What the child says that it has drawn under this lease."""
        with self._changing:
            self._usage = replace(
                self._usage,
                prompt_tokens=int(event["prompt_tokens"]),
                completion_tokens=int(event["completion_tokens"]),
                uncounted=int(event["uncounted"]),
            )

    def record(self, claim: Claim, cause: str = "") -> None:
        """Note what the lease took so far, and why it is about to fail."""
        with self._changing:
            self._seen = max(self._seen, self._child.cpu_seconds)
            taken = self._seen - self._before
            self._usage = replace(
                self._usage, cpu_seconds=round(taken, 2), cause=cause or self._usage.cause
            )
            self.office.record_usage(claim, self._usage)

    def renew(self, claim: Claim) -> bool:
        """Prolong the lease; False when it is lost."""
        held = self.office.renew(claim)
        if held:
            self.record(claim)
        return held

    def finish(self, claim: Claim, result: Mapping[str, Any]) -> None:
        """The shard is done. Raises LeaseLostError."""
        self.record(claim)
        self.office.finish_shard(claim, result)
        logger.info("shard finished", extra={"cpu_seconds": self._usage.cpu_seconds})

    def fail(
        self, claim: Claim, sentence: str, *, transient: bool, cause: str = "", log_tail: str = ""
    ) -> None:
        """The shard failed. Raises LeaseLostError."""
        self.record(claim, cause)
        self.office.fail_shard(claim, sentence, transient=transient, log_tail=log_tail)
        kind = cause or ("transient" if transient else "permanent")
        logger.warning("shard failed: %s", sentence, extra={"cause": kind})

    def release(self, claim: Claim) -> None:
        """Give the shard back untried."""
        self.record(claim)
        self.office.release_shard(claim)
        logger.info("shard given back")
