"""What can go wrong with the sandbox itself, as opposed to a program in it."""

from __future__ import annotations

from evaluator.errors import GraderError


class SandboxError(GraderError):
    """A program could not be run, for no reason of its own: the judge's error, JE."""


class SandboxUnavailableError(SandboxError):
    """Programs cannot be isolated here; the message names the package to install."""
