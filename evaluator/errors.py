"""The evaluator's exceptions: one tree, permanent and transient told apart.

Every message is one sentence that names the field or file and the remedy; the command line prints
it as it stands and exits with code 2 (``InputError``) or 1 (the others).
"""


class EvaluatorError(Exception):
    """Base of everything this library raises on purpose.

    ``transient`` says whether trying again, unchanged, may succeed.
    """

    transient = False


class InputError(EvaluatorError):
    """What the user gave cannot be used: an unknown name, a malformed row, a missing file."""


class EngineError(EvaluatorError):
    """An engine cannot do its work and will not on another try (no such model, no template)."""


class TransientEngineError(EngineError):
    """An engine failed in a way that another try may mend (a dropped connection, a 429)."""

    transient = True


class GraderError(EvaluatorError):
    """A grader failed to reach a verdict: never the same thing as a wrong answer."""


class UndecidedError(EvaluatorError):
    """Two answers were not shown to be the same, and would not be on another try."""


class StoreError(EvaluatorError):
    """A segment on disk is not what its name or hash says."""
