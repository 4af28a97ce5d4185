"""What an engine is: rendered prompts in, completions out, each as soon as it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Interface

from evaluator.protocol import Protocol, Sampling, Thinking
from evaluator.records import Completion


@dataclass(frozen=True, slots=True)
class Request:
    r"""One completion asked for.

    ``prompt`` is the rendered text, exactly as the model reads it. ``start`` is the part at its
    end that is put into the model's mouth (``<think>\n``): a completion's text begins with it.
    """

    problem_id: str
    sample: int
    prompt: str
    seed: int
    start: str = ""
    options: tuple[int, ...] = ()  # multiple choice: the order in which the prompt shows them
    again: bool = False  # others of the run were answered before: a refusal is about this one

    @property
    def key(self) -> tuple[str, int]:
        """(problem id, sample)."""
        return (self.problem_id, self.sample)


class Engine(Interface):
    """Turns prompts into completions."""

    def describe(self) -> dict[str, Any]:
        """Name, versions, dtype, device, context length, chat-template hash.

        Plain JSON values and the same for every shard of a stage: the run fingerprint is made of
        it.
        """
        ...

    def render(self, problem: str, *, prompt: str, protocol: Protocol) -> str:
        """The text that the model reads for ``problem``.

        ``prompt`` holds ``{problem}``; the chat template is applied and the forced response start
        appended. Raises InputError where the checkpoint has no chat template and the protocol
        names none, or where the template writes a system prompt of its own.
        """
        ...

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield a completion for each request, in any order, as soon as it ends.

        Raises InputError when a prompt does not fit into the context; no completion has been
        yielded by then.
        """
        ...

    def close(self) -> None:
        """Free the model's memory; the engine cannot be used afterwards."""
        ...


def forced_start(prompt: str, thinking: Thinking) -> str:
    """The opening tag at the end of a rendered prompt, as it stands there; empty where none.

    Some chat templates open the thoughts by themselves, so the prompt is asked, not the protocol:
    a response whose thoughts were opened for it must not be read as if it had none.
    """
    if thinking.kind != "tags":
        return ""
    for start in (f"{thinking.open}\n", thinking.open):
        if prompt.endswith(start):
            return start
    return ""
