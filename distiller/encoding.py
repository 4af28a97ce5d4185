"""Examples: a prompt as at inference, a response as the model writes it, and the ending token.

Prompts are rendered by the code that renders them at inference; the response is appended as the
model itself would have written it. So no chat template can drop the thoughts of an answer, as
DeepSeek's does. Prompt and response are tokenised apart: the model never generates a token that
began in its prompt. Supervised are the response's tokens and the ending token, and nothing is
masked because of its id: where a tokenizer pads with its ending token, the model still learns to
end. Torch-free.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distiller import templates
from distiller.errors import InputError
from distiller.filters.base import Trace
from distiller.mixing import Chat
from distiller.recipe import Recipe
from evaluator.engines.base import forced_start
from evaluator.engines.prompting import Prompter
from evaluator.errors import InputError as EvaluatorInputError
from evaluator.protocol import Protocol

BATCH = 128  # texts tokenised at once
# As models of others end: a teacher's, which is only text to the student's tokenizer.
ENDINGS = (
    "<|im_end|>", "<|endoftext|>", "<｜end▁of▁sentence｜>", "<|eot_id|>", "<|end_of_text|>",
    "<|eom_id|>", "<|end|>", "<|return|>", "<end_of_turn>", "<eos>", "</s>",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Example:
    """One training sequence. Tokens from ``prompt_tokens`` on carry loss; the last one ends it,
    unless it was ``cut`` at the longest length.
    """

    problem_id: str
    sample: int
    input_ids: tuple[int, ...]
    prompt_tokens: int
    source: str = "traces"
    cut: bool = False

    @property
    def supervised_tokens(self) -> int:
        """Tokens that carry loss."""
        return len(self.input_ids) - self.prompt_tokens


@dataclass(frozen=True, slots=True)
class Rendered:
    """One example's two texts, before they are tokenised; the ending token is in neither."""

    problem_id: str
    sample: int
    prompt: str
    response: str


class Encoder:
    """Turns traces and chats into examples with a base checkpoint's tokenizer and template."""

    def __init__(self, base_model: Path, recipe: Recipe) -> None:
        self._prompter = Prompter(base_model)
        self._recipe = recipe
        self.tokenizer = self._prompter.tokenizer
        self._base = copy.copy(self._prompter)  # with the base's own template
        named = recipe.corpus.chat_template
        plain = named == templates.PLAIN
        # The student keeps the recipe's template as its own: it is asked, and so it is taught, by
        # the rules of a checkpoint's own template, which let none write a system prompt of its own.
        if named is not None:
            self._prompter.template = None if plain else named
        self._protocol = Protocol(
            thinking=recipe.thinking, chat_template=templates.PLAIN if plain else None
        )
        if self.template is None and recipe.corpus.chat_template is None:
            raise InputError(
                "base: its tokenizer has no chat template and the recipe names none; set "
                'corpus.chat_template to a Jinja template ("none": plain text).'
            )
        end = templates.ending(self.tokenizer, self.template)
        self.end_id, self.end_token = end.id, end.token
        tags = (recipe.thinking.open, recipe.thinking.close)
        self.turn_ids = templates.turn_ids(self.tokenizer, self.template, tags) - {end.id}
        self.pad_token: str | None = recipe.corpus.padding_token or self.tokenizer.pad_token
        self.pad_id: int | None = self._padding_id()

    def _padding_id(self) -> int | None:
        if self.pad_token is None:
            return None
        if self.pad_token not in self.tokenizer.get_vocab():
            raise InputError(
                f"corpus.padding_token: {self.pad_token!r} is no token of the base; name one that "
                "its vocabulary has."
            )
        return int(self.tokenizer.convert_tokens_to_ids(self.pad_token))

    @property
    def config(self) -> Any:
        """The base's configuration, as transformers reads it."""
        return self._prompter.config

    @property
    def base_template(self) -> str | None:
        """The base's own template."""
        return self._base.template

    @property
    def template(self) -> str | None:
        """The template in force: the recipe's, else the base's; None sends plain text."""
        return self._prompter.template

    def prompt(self, problem: str) -> str:
        """The rendered prompt, a forced response start included, as at inference."""
        with _named_as_in_a_recipe():
            return self.prompt_of(problem, self._protocol)

    def prompt_of(self, problem: str, protocol: Protocol) -> str:
        """The prompt that ``protocol`` would ask the student with, the recipe's text around it."""
        return self._prompter.render(problem, prompt=self._recipe.prompt, protocol=protocol)

    def prompt_of_base(self, problem: str, protocol: Protocol) -> str:
        """The prompt that ``protocol`` would ask the base with, the recipe's text around it."""
        return self._base.render(problem, prompt=self._recipe.prompt, protocol=protocol)

    def response(self, prompt: str, completion: str) -> str:
        """What the model has to write after ``prompt``: the completion less a forced start.

        Ending tokens that were left at the end of the text, the student's or its teacher's, are
        taken off; one is added as an id.
        """
        endings = (self.end_token, *ENDINGS)
        while (bare := completion.rstrip()).endswith(endings):
            completion = next(bare.removesuffix(end) for end in endings if bare.endswith(end))
        start = forced_start(prompt, self._recipe.thinking)
        if start and completion.startswith(start.rstrip("\n")):
            completion = completion.removeprefix(start.rstrip("\n"))
            return completion.removeprefix("\n") if start.endswith("\n") else completion
        return completion

    def render(self, trace: Trace) -> Rendered:
        """A trace's prompt and response. Thoughts that came in a field of their own are put
        between the tags.
        """
        prompt = self.prompt(trace.problem.problem)
        thinking, thoughts = self._recipe.thinking, trace.completion.reasoning
        text = trace.text
        if thoughts and thinking.kind != "none" and thinking.close not in text:
            text = f"{thinking.open}\n{thoughts.strip()}\n{thinking.close}\n\n{text.lstrip()}"
        return Rendered(
            trace.problem.id, trace.completion.sample, prompt, self.response(prompt, text)
        )

    def render_chat(self, chat: Chat) -> Rendered:
        """A chat's prompt, which is all before its last answer, and that answer.

        Where the prompt opens the thoughts and the answer has none, they are closed at once, as
        DeepSeek-R1 itself answers what needs no thought.
        """
        protocol = self._protocol.model_copy(update={"system_prompt": chat.system})
        with _named_as_in_a_recipe():
            prompt = self._prompter.render_chat(chat.turns, protocol)
        thinking, answer = self._recipe.thinking, chat.answer
        if forced_start(prompt, thinking) and thinking.close not in answer:
            answer = f"\n{thinking.close}\n\n{answer}"
        return Rendered(chat.id, 0, prompt, self.response(prompt, answer))

    def encode(self, trace: Trace) -> Example:
        """Token ids: the prompt's, the response's, the ending token."""
        return next(self.examples([self.render(trace)]))

    def examples(
        self, rendered: Iterable[Rendered], *, source: str = "traces"
    ) -> Iterator[Example]:
        """The token ids of each, in order. Batches are tokenised at once, which uses all cores."""
        batch: list[Rendered] = []
        for each in rendered:
            batch.append(each)
            if len(batch) == BATCH:
                yield from self._encode(batch, source)
                batch = []
        yield from self._encode(batch, source)

    def _encode(self, batch: Sequence[Rendered], source: str) -> Iterator[Example]:
        if not batch:
            return
        prompts = self.ids_of([each.prompt for each in batch])
        responses = self.ids_of([each.response for each in batch])
        for each, head, tail in zip(batch, prompts, responses, strict=True):
            ids = (*head, *tail, self.end_id)
            yield Example(each.problem_id, each.sample, ids, len(head), source)

    def ids_of(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text as it stands: no special tokens are added."""
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return ids

    def ids(self, text: str) -> list[int]:
        """:meth:`ids_of` for one text."""
        return self.ids_of([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens included."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )


@contextmanager
def _named_as_in_a_recipe() -> Iterator[None]:
    """What is wrong with a template is mended where the recipe names it."""
    try:
        yield
    except EvaluatorInputError as error:
        field = str(error).replace("protocol.chat_template", "corpus.chat_template")
        raise InputError(field) from error
