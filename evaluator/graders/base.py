"""What a grader is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from evaluator.graders.extraction import extract_answer
from evaluator.protocol import GradingPolicy


class Grader(ABC):
    """Extracts answers and tells whether two of them are the same.

    ``version`` goes up with every change that can change a verdict: it is part of the measurement
    hash. ``untrusted`` says that it runs programs which a model wrote: such a stage belongs to
    workers that hold nothing worth stealing.
    """

    name: str
    version: int
    untrusted: bool = False

    @property
    def compares(self) -> bool:
        """Whether two answers can be compared, so that they can vote; programs cannot."""
        return not self.untrusted

    def check_available(self) -> None:  # noqa: B027 - most graders need nothing
        """Raise GraderError, naming the remedy, where this machine cannot grade at all."""

    @property
    def identity(self) -> str:
        """Name and version, as ``math/1``."""
        return f"{self.name}/{self.version}"

    def extract(self, part: str, policy: GradingPolicy) -> str | None:
        """Find the final answer in an answer part; linear time."""
        return extract_answer(part, policy)

    def read(self, prediction: str, policy: GradingPolicy) -> str:
        """The answer in a text that was given as a final answer; linear time."""
        return prediction

    def unshuffled(self, answer: str, options: tuple[int, ...]) -> str:
        """The answer as it would stand had the options not been shuffled.

        ``options[i]`` is the index, in the problem, of the option shown in place i.
        """
        return answer

    @abstractmethod
    def equal_fast(self, first: str, second: str, policy: GradingPolicy) -> bool | None:
        """Compare without evaluating anything; None where that does not decide. Linear time."""

    def equal_slow(self, first: str, second: str, policy: GradingPolicy) -> bool:
        """Compare by evaluation, in a process that can be killed. Symmetric.

        Only called where :meth:`equal_fast` returned None. Raises UndecidedError where the two
        were not shown to be the same because their own content cannot be worked with: they count
        as different. Every other exception is a failure of the grader, and no verdict.
        """
        raise NotImplementedError(f"{self.name} decides every comparison without evaluation")
