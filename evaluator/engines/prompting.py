"""A checkpoint's tokenizer: chat template, rendered prompts, token ids. No torch in here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluator.engines.base import Request
from evaluator.errors import InputError
from evaluator.protocol import Protocol, Sampling
from evaluator.records import Completion, FinishReason

# More words than this before the question are a system prompt, whatever the template calls them
# ("system", "### Instruction:" and "Human:" are role headers).
_HEADER_WORDS = 4

Turn = Mapping[str, str]  # {"role": "user" or "assistant", "content": text}


class Prompter:
    """Renders and encodes prompts for one checkpoint, the same way for every local engine."""

    def __init__(self, model: Path, rope: Mapping[str, Any] | None = None) -> None:
        from transformers import AutoConfig, AutoTokenizer

        if not (model / "config.json").is_file():
            raise InputError(f"model: {model} is no checkpoint folder (it has no config.json).")
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(model, local_files_only=True)
            self.config: Any = AutoConfig.from_pretrained(model, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            sentence = str(error).strip().splitlines()[0]
            raise InputError(
                f"model: the tokenizer or config in {model} cannot be loaded ({sentence})."
            ) from error
        # Engines hand these fields on; empty where the checkpoint's own config stands.
        self.overrides: dict[str, Any] = {} if rope is None else self._stretched(rope)
        templates = self.tokenizer.chat_template
        self.template: str | None = (
            templates.get("default") if isinstance(templates, dict) else templates
        )
        self._bos: str = self.tokenizer.bos_token if self._begins_with_bos(model) else ""

    def _stretched(self, rope: Mapping[str, Any]) -> dict[str, Any]:
        """Set the config's rotary positions as ``protocol.Rope`` says; returns what was set."""
        config = self.config.get_text_config()
        trained = rope.get("original_tokens") or getattr(config, "max_position_embeddings", None)
        known = getattr(config, "rope_parameters", None)
        if not trained or not known or "rope_theta" not in known:
            raise InputError("rope: the model has no rotary positions of one kind to stretch.")
        changed = {
            "max_position_embeddings": int(trained * rope["factor"]),
            "rope_parameters": {
                "rope_theta": known["rope_theta"],
                "rope_type": rope["kind"],
                "factor": rope["factor"],
                "original_max_position_embeddings": int(trained),
            },
        }
        for name, value in changed.items():
            setattr(config, name, value)
        return changed

    def _begins_with_bos(self, model: Path) -> bool:
        """Whether this checkpoint's texts begin with BOS.

        Its own tokenizer_config.json is asked too, because transformers may load another class than
        it names (DeepSeek-R1-Distill-Qwen as Qwen2) and drop the setting.
        """
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return False
        path = model / "tokenizer_config.json"
        if path.is_file() and json.loads(path.read_text()).get("add_bos_token") is True:
            return True
        ids = self.tokenizer("a")["input_ids"]
        return bool(ids) and ids[0] == bos

    @property
    def template_hash(self) -> str | None:
        """SHA-256 of the checkpoint's own chat template; None where it has none."""
        if self.template is None:
            return None
        return hashlib.sha256(str(self.template).encode()).hexdigest()

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Token ids that end a response: the tokenizer's and the config's, nothing else's.

        generation_config.json is not read: a measurement's settings come from the protocol alone.
        """
        ends = {self.tokenizer.eos_token_id}
        configured = getattr(self.config, "eos_token_id", None)
        ends |= set(configured) if isinstance(configured, list) else {configured}
        return tuple(sorted(end for end in ends if end is not None))

    def context_tokens(self, limit: int | None) -> int:
        """Positions that the model has, or fewer if ``limit`` says so."""
        positions = int(getattr(self.config, "max_position_embeddings", 0) or 0)
        if limit is not None and positions and limit > positions:
            raise InputError(
                f"context_tokens: {limit} asked for, but the model has {positions} positions."
            )
        if limit is None and not positions:
            raise InputError("context_tokens: the model's config does not say; set it.")
        return limit or positions

    def render(self, problem: str, *, prompt: str, protocol: Protocol) -> str:
        """See :meth:`evaluator.engines.base.Engine.render`."""
        question = prompt.replace("{problem}", problem)
        return self.render_chat([{"role": "user", "content": question}], protocol)

    def render_chat(self, turns: Sequence[Turn], protocol: Protocol) -> str:
        """The text that the model reads after ``turns``, the last of which is the user's.

        The system prompt is the protocol's, not one of the turns. Earlier answers are written as
        the template writes them, so one that drops old thoughts drops them here too.
        """
        if protocol.chat_template == "none":
            if len(turns) > 1:
                raise InputError(
                    'chat template: "none" cannot tell the turns of a conversation apart; '
                    "name a template."
                )
            system = f"{protocol.system_prompt}\n\n" if protocol.system_prompt else ""
            text = system + turns[-1]["content"]
        else:
            text = self._render_turns(turns, protocol)
        if self._bos and not text.startswith(self._bos):
            text = self._bos + text
        if self._bos and text.startswith(self._bos * 2):
            raise InputError("chat template: the rendered prompt begins with two BOS tokens.")
        start = protocol.thinking.response_start
        if start and not text.rstrip("\n").endswith(start.rstrip("\n")):
            text += start
        return text

    def _render_turns(self, turns: Sequence[Turn], protocol: Protocol) -> str:
        template = protocol.chat_template or self.template
        if template is None:
            raise InputError(
                "chat template: the checkpoint has none; name one in protocol.chat_template "
                '("none" sends plain text).'
            )
        system, first = protocol.system_prompt, turns[0]["content"]
        text = self._apply(template, turns, system)
        if protocol.chat_template or not _foreign(self._head(text, first, system)):
            return text
        # Some templates write a system prompt of their own unless they are given one: an empty one
        # tells them not to.
        if system is None:
            text = self._apply(template, turns, "")
        if foreign := _foreign(self._head(text, first, system)):
            raise InputError(
                f"chat template: it writes a system prompt of its own ({foreign[:60]!r}); "
                "give a template without one in protocol.chat_template."
            )
        return text

    def _apply(self, template: str, turns: Sequence[Turn], system: str | None) -> str:
        import jinja2

        messages = [dict(turn) for turn in turns]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, chat_template=template, add_generation_prompt=True, tokenize=False
            )
        except jinja2.TemplateError as error:
            raise InputError(
                f"chat template: it does not render ({error}); give another one in "
                "protocol.chat_template."
            ) from error
        if any(turn["content"].strip() not in text for turn in (turns[0], turns[-1])):
            raise InputError("chat template: the rendered prompt does not contain the problem.")
        return text

    def _head(self, text: str, question: str, system: str | None) -> str:
        """What stands before the question, less special tokens and the protocol's system prompt."""
        head = text[: text.index(question.strip())]
        if system:
            head = head.replace(system.strip(), "", 1)
        added = {str(token) for token in self.tokenizer.added_tokens_decoder.values()}
        for token in sorted(added, key=len, reverse=True):
            head = head.replace(token, " ")
        return head

    def encode(self, request: Request, *, context: int) -> list[int]:
        """Token ids of the rendered prompt; InputError when no room is left for an answer."""
        ids: list[int] = self.tokenizer(request.prompt, add_special_tokens=False)["input_ids"]
        if not ids:
            raise InputError(f"problem {request.problem_id}: its prompt is empty.")
        if len(ids) >= context:
            raise InputError(
                f"problem {request.problem_id}: its prompt has {len(ids)} tokens, but the context "
                f"only {context}; use a checkpoint or protocol with a longer context."
            )
        return ids

    def complete(
        self,
        request: Request,
        ids: Sequence[int],
        *,
        prompt_tokens: int,
        stopped: bool,
        sampling: Sampling,
    ) -> Completion:
        """The completion whose generated tokens, an ending token included, are ``ids``.

        Special tokens stay in the text, because a checkpoint may keep its thinking tags among them.
        """
        ended = bool(ids) and ids[-1] in self.end_ids
        text: str = self.tokenizer.decode(
            list(ids[:-1] if ended else ids),
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        cut = first_stop(text, sampling.stop)
        return Completion(
            problem_id=request.problem_id,
            sample=request.sample,
            text=request.start + (text if cut is None else text[:cut]),
            finish_reason=FinishReason.STOP if ended or stopped else FinishReason.LENGTH,
            prompt_tokens=prompt_tokens,
            completion_tokens=len(ids),
            seed=request.seed,
        )


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of the stop strings begins in ``text``; None where none occurs."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return min(found, default=None)


def _foreign(head: str) -> str:
    """``head`` in one line if it is more than role headers; empty otherwise."""
    words = re.findall(r"\w+", head)
    return " ".join(head.split()) if len(words) > _HEADER_WORDS else ""
