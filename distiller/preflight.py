"""What is checked, in seconds, before a GPU is touched. Torch-free but for :mod:`distiller.probe`.

Each check answers one way in which fine-tuning is known to go wrong without an error message. An
error stops the run; a warning is for a person to judge; each is one sentence with its remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distiller import decontamination, mixing, templates
from distiller.checks import (
    Check,
    Level,
    checks_of_corpus,
    error,
    lengths_of,
    mask_pieces,
    note,
    ok,
    require_passed,
    round_trip,
    spread,
    supervised_of,
    warning,
)
from distiller.corpus import Corpus, Encoder, Example
from distiller.encoding import Rendered
from distiller.errors import DistillerError, InputError
from distiller.filters.base import Trace
from distiller.memory import estimate
from distiller.recipe import Recipe
from evaluator.errors import InputError as EvaluatorInputError
from evaluator.protocol import Rope
from evaluator.records import Completion, FinishReason, Problem

__all__ = ["Check", "Level", "Report", "checks_of_corpus", "mask_pieces", "require_passed", "run"]

PACKED_TOLERANCE = 1e-3  # relative, float32: other summation order, nothing else
Probe = Callable[..., tuple[int, float]]  # of distiller.probe.probe


@dataclass(slots=True)
class Report:
    """All checks, and the first example in pieces that carry loss or do not."""

    checks: list[Check] = field(default_factory=list)
    example: list[dict[str, Any]] = field(default_factory=list)  # {"text", "supervised"}
    figures: dict[str, float] = field(default_factory=dict)

    def of(self, level: Level) -> list[Check]:
        """The checks with that result."""
        return [check for check in self.checks if check.level == level]

    def to_json(self) -> dict[str, Any]:
        """The content of preflight.json."""
        return {
            "checks": [check.to_json() for check in self.checks],
            "errors": len(self.of(Level.ERROR)),
            "warnings": len(self.of(Level.WARNING)),
            "figures": self.figures,
            "example": self.example,
        }


def run(
    recipe: Recipe,
    base_model: Path,
    prompts: Sequence[Problem],
    *,
    traces: Iterable[Trace] | None = None,
    corpus: Corpus | None = None,
    benchmarks: Mapping[str, Sequence[Problem]] | None = None,
    probe: Probe | None = None,
) -> Report:
    """Check a recipe. ``traces`` or ``corpus`` are looked at where they exist already; before
    that, the answer of a perfect teacher to the first prompt stands in for them.

    ``probe`` gives (parameters, packed logits' relative difference) of a configuration
    (:func:`distiller.probe.probe`); None leaves out what needs a model.
    """
    report = Report()
    add = report.checks.append
    if not prompts:
        add(error("prompts", "there are none; give a prompt set with at least one problem"))
        return report
    try:
        encoder = Encoder(base_model, recipe)
        rendered = _rendered(encoder, recipe, prompts, traces)
        examples: Sequence[Example] = corpus or list(encoder.examples(rendered))
        chats, asked = _chats(encoder, recipe)
        found = checks_of_corpus(examples, encoder, recipe, known=bool(corpus or traces))
        if corpus is None:
            found += [round_trip(rendered, encoder)]
        asking = _measured(encoder, recipe, prompts[0])
        if not any(check.level is Level.ERROR for check in asking):
            asking += _benchmark_lengths(encoder, recipe, benchmarks or {})
    except (DistillerError, EvaluatorInputError) as failure:
        add(_fault(failure))
        return report
    report.checks += [_template(encoder, recipe), *asking, *found]
    if recipe.corpus.general and corpus is None:
        add(_general(chats, encoder, recipe))
    lengths = lengths_of(examples) + [len(each.input_ids) for each in chats]
    longest = _longest(encoder, recipe, prompts, lengths, known=bool(corpus or traces))
    add(_promptlengths_of(encoder, recipe, prompts))
    add(_context(encoder, recipe, longest))
    add(_vocabulary(encoder, [examples[i] for i in spread(range(len(examples)))]))
    add(_contamination(recipe, [*prompts, *asked], benchmarks or {}))
    if probe is not None:
        report.checks += _of_model(encoder, recipe, longest, probe, report.figures)
    report.example = mask_pieces(examples[0], encoder)
    report.figures |= _figures(examples, longest)
    return report


def of_training(
    recipe: Recipe,
    base_model: Path,
    corpus: Corpus,
    manifest: Mapping[str, Any],
    *,
    probe: Probe | None = None,
) -> Report:
    """Check what a training is about to be given: the checks of :func:`run` that need no prompts.

    ``manifest`` is the corpus': its tokens must be the base's.
    """
    report = Report()
    try:
        encoder = Encoder(base_model, recipe)
    except (DistillerError, EvaluatorInputError) as failure:
        report.checks.append(_fault(failure))
        return report
    longest = max(lengths_of(corpus))
    report.checks += [
        _tokenizer(encoder, manifest),
        _template(encoder, recipe),
        *checks_of_corpus(corpus, encoder, recipe),
        _context(encoder, recipe, longest),
        _vocabulary(encoder, [corpus[i] for i in spread(range(len(corpus)))]),
    ]
    if probe is not None:
        report.checks += _of_model(encoder, recipe, longest, probe, report.figures)
    report.example = mask_pieces(corpus[0], encoder)
    report.figures |= _figures(corpus, longest)
    return report


def _fault(failure: DistillerError | EvaluatorInputError) -> Check:
    """What kept the checks from being made, as one of them."""
    name, _, sentence = str(failure).partition(": ")
    return error(name, sentence.rstrip(".")) if sentence else error("base", name.rstrip("."))


# --- the examples


def _rendered(
    encoder: Encoder, recipe: Recipe, prompts: Sequence[Problem], traces: Iterable[Trace] | None
) -> list[Rendered]:
    if traces is None:
        return [encoder.render(_stand_in(prompts[0], recipe))]
    chosen = list(spread(list(traces)))
    if not chosen:
        raise InputError("traces: there are none; draw some, or relax the filters.")
    return [encoder.render(trace) for trace in chosen]


def _stand_in(problem: Problem, recipe: Recipe) -> Trace:
    """What a perfect teacher might answer."""
    tags = recipe.thinking
    thoughts = f"{tags.open}\nFirst.\n{tags.close}\n\n" if tags.kind != "none" else ""
    text = f"{thoughts}\\boxed{{{problem.answer}}}"
    return Trace(problem, Completion(problem.id, 0, text, FinishReason.STOP))


def _chats(encoder: Encoder, recipe: Recipe) -> tuple[list[Example], list[Problem]]:
    """The chats looked at, and what they ask: a benchmark's problem might stand in it."""
    found: list[Example] = []
    asked: list[Problem] = []
    for source in recipe.corpus.general:
        chats = list(mixing.read_chats(Path(source.file), source.name))
        if not chats:
            raise InputError(
                f"corpus.general: {source.name!r} has no chat in {source.file}; leave it out or "
                "give it some."
            )
        chosen = spread(chats)
        found += encoder.examples(map(encoder.render_chat, chosen), source=source.name)
        asked += [Problem(chat.id, chat.asked, "") for chat in chosen]
    return found, asked


def _figures(examples: Sequence[Example], longest: int) -> dict[str, float]:
    tokens, supervised = sum(lengths_of(examples)), int(supervised_of(examples).sum())
    return {
        "examples": len(examples),
        "tokens": tokens,
        "supervised_tokens": supervised,
        "supervised_share": supervised / tokens,
        "longest_tokens": longest,
    }


# --- the checks


def _tokenizer(encoder: Encoder, manifest: Mapping[str, Any]) -> Check:
    """The corpus must have been made with the base's tokenizer and the recipe's template."""
    now = {
        "tokenizer": templates.tokenizer_hash(encoder.tokenizer),
        "chat template": encoder.template,
    }
    then = {
        "tokenizer": manifest.get("tokenizer_hash"),
        "chat template": manifest.get("chat_template"),
    }
    for what, value in now.items():
        if value != then[what]:
            return error(
                "tokenizer",
                f"the corpus was made with another {what} than the base's, so its tokens would say "
                "something else; build the corpus again with this recipe",
            )
    return ok("tokenizer", "the corpus was made with the base's tokenizer and chat template")


def _template(encoder: Encoder, recipe: Recipe) -> Check:
    tags = recipe.thinking
    if encoder.template is None:
        return note("chat template", "none: prompts are plain text, as corpus.chat_template says")
    whose = "the recipe's" if recipe.corpus.chat_template else "the base's own"
    if tags.kind != "none" and templates.drops_thoughts(
        encoder.tokenizer, encoder.template, tags.open, tags.close
    ):
        return note(
            "chat template",
            f"{whose} leaves the thoughts out of an answer; here the response is appended as the "
            "model writes it, so they stay",
        )
    return ok("chat template", f"{whose}; it keeps what stands in an answer")


def _measured(encoder: Encoder, recipe: Recipe, problem: Problem) -> list[Check]:
    """The student must be asked as it was taught."""
    plan, named = recipe.evaluation, recipe.evaluation.protocol.chat_template
    if not plan.benchmarks:
        return []
    if encoder.template is None and named != templates.PLAIN:
        return [
            error(
                "evaluation prompt",
                "the student has no chat template to be asked with; set "
                f'evaluation.protocol.chat_template to "{templates.PLAIN}"',
            )
        ]
    if encoder.base_template is None and named is None and "base" in plan.roles:
        return [
            error(
                "evaluation prompt",
                "the base has no chat template to be asked with; name one in "
                "evaluation.protocol.chat_template, or leave base out of evaluation.roles",
            )
        ]
    if "base" in plan.roles:
        try:
            encoder.prompt_of_base(problem.problem, plan.protocol)
        except EvaluatorInputError as failure:
            reason = str(failure).partition("; ")[0]
            return [
                error(
                    "evaluation prompt",
                    f"the base cannot be asked ({reason}); name a template in "
                    "evaluation.protocol.chat_template, or leave base out of evaluation.roles",
                )
            ]
    taught = encoder.prompt(problem.problem)
    asked = encoder.prompt_of(problem.problem, plan.protocol)
    if taught == asked:
        return [ok("evaluation prompt", "the student is asked exactly as it was taught")]
    at = next(
        (i for i, (a, b) in enumerate(zip(taught, asked, strict=False)) if a != b),
        min(len(taught), len(asked)),
    )
    return [
        warning(
            "evaluation prompt",
            f"the student is taught {taught[at : at + 30]!r} where the evaluation asks "
            f"{asked[at : at + 30]!r}; bring thinking, system_prompt and chat_template of "
            "evaluation.protocol into line with the recipe's",
        )
    ]


def _benchmark_lengths(
    encoder: Encoder, recipe: Recipe, benchmarks: Mapping[str, Sequence[Problem]]
) -> list[Check]:
    """Who is asked a problem must have room for an answer: found out after the training else."""
    plan, name = recipe.evaluation, "benchmark length"
    problems = [
        problem
        for known, held in benchmarks.items()
        if known.partition("@")[0] in plan.benchmarks
        for problem in held
    ]
    asking = {
        "student": (encoder.prompt_of, _reach(encoder, recipe.training.rope)),
        "base": (encoder.prompt_of_base, _reach(encoder, None)),
    }
    if not problems:
        return []
    for role in [role for role in plan.roles if role in asking]:
        render, reach = asking[role]
        texts = [render(problem.problem, plan.protocol) for problem in problems]
        lengths = [len(ids) for ids in encoder.ids_of(texts)]
        over = sum(length >= reach for length in lengths)
        if reach and over:
            return [
                error(
                    name,
                    f"{over} of {len(lengths)} benchmark problems leave the {role} no room for an "
                    f"answer (up to {max(lengths)} tokens in {reach} positions); take their "
                    "benchmarks out of evaluation.benchmarks, or take a base with more positions",
                )
            ]
    return [ok(name, f"all of {len(problems)} benchmark problems leave room for an answer")]


def _general(chats: Sequence[Example], encoder: Encoder, recipe: Recipe) -> Check:
    plan = recipe.corpus
    weights = " : ".join(
        f"{weight:g} {name}"
        for name, weight in [
            ("traces", plan.traces_weight),
            *((source.name, source.weight) for source in plan.general),
        ]
    )
    over = sum(len(each.input_ids) > recipe.training.max_length_tokens for each in chats)
    if over == len(chats):
        return error(
            "mix",
            f"all {over} chats looked at are longer than {recipe.training.max_length_tokens} "
            "tokens; raise training.max_length_tokens",
        )
    return note("mix", f"{weights}; {over} of {len(chats)} chats looked at are too long")


def _promptlengths_of(encoder: Encoder, recipe: Recipe, prompts: Sequence[Problem]) -> Check:
    lengths = _prompt_tokens(encoder, prompts)
    limit, name = recipe.training.max_length_tokens, "prompt length"
    over = sum(length >= limit for length in lengths)
    if not over:
        return ok(
            name, f"the longest of {len(lengths)} prompts looked at has {max(lengths)} tokens"
        )
    sentence = (
        f"{over} of {len(lengths)} prompts looked at leave no room for a response in {limit} "
        "tokens; raise training.max_length_tokens, or leave them out"
    )
    return error(name, sentence) if over == len(lengths) else warning(name, sentence)


def _prompt_tokens(encoder: Encoder, prompts: Sequence[Problem]) -> list[int]:
    texts = [encoder.prompt(problem.problem) for problem in spread(prompts)]
    return [len(ids) for ids in encoder.ids_of(texts)]


def _longest(
    encoder: Encoder,
    recipe: Recipe,
    prompts: Sequence[Problem],
    lengths: Sequence[int],
    *,
    known: bool,
) -> int:
    """The longest sequence that is trained on, in tokens; the longest possible before traces."""
    limit = recipe.training.max_length_tokens
    if known:
        return min(limit, max(lengths))
    possible = max(_prompt_tokens(encoder, prompts)) + recipe.generation.sampling.max_tokens + 1
    return min(limit, max(possible, *lengths))


def _reach(encoder: Encoder, rope: Rope | None) -> int:
    """Positions of the base, as ``rope`` stretches them; 0 where its config does not say."""
    config = encoder.config.get_text_config()
    positions = int(getattr(config, "max_position_embeddings", 0) or 0)
    if rope is None or not positions:
        return positions
    return int((rope.original_tokens or positions) * rope.factor)


def _context(encoder: Encoder, recipe: Recipe, longest: int) -> Check:
    """The model must have a position for every token."""
    rope, name = recipe.training.rope, "context"
    positions, reach = _reach(encoder, None), _reach(encoder, rope)
    if not positions:
        return note(name, "the base's config does not say how many positions it has")
    if longest <= reach:
        return ok(name, f"{longest} tokens at most, {reach} positions")
    factor = -(-longest // positions)
    return error(
        name,
        f"an example may have {longest} tokens, but the base has {reach} positions"
        f"{' even as training.rope stretches them' if rope else ''}; lower "
        f"training.max_length_tokens to {reach} (longer ones are then "
        f"{'cut off' if recipe.corpus.too_long == 'truncate' else 'dropped'}), or set "
        f"training.rope with a factor of {factor} or more",
    )


def _vocabulary(encoder: Encoder, examples: Sequence[Example]) -> Check:
    """The model must have a row for every token."""
    known, name = int(encoder.config.get_text_config().vocab_size), "vocabulary"
    largest = max(encoder.end_id, *(max(example.input_ids) for example in examples))
    if largest < known:
        return ok(name, f"the model knows {known} tokens, the examples use ids up to {largest}")
    token = encoder.tokenizer.convert_ids_to_tokens(largest)
    return error(
        name,
        f"the examples hold token {largest} ({token}), but the model knows only {known}; use the "
        "tokenizer that belongs to the base, or enlarge its embeddings",
    )


def _contamination(
    recipe: Recipe, prompts: Sequence[Problem], benchmarks: Mapping[str, Sequence[Problem]]
) -> Check:
    name = "contamination"
    if not benchmarks:
        return warning(
            name,
            "no benchmark was given to compare the prompts with; install the benchmarks that the "
            "student is measured on (on the command line: --benchmark FILE)",
        )
    hits = decontamination.find(prompts, benchmarks)
    if not hits:
        return ok(name, f"none of {len(prompts)} prompts stands in {len(benchmarks)} benchmarks")
    first = hits[0]
    where = (
        f"{len(hits)} of {len(prompts)} prompts stand in a benchmark (the first: {first.problem_id}"
        f" is {first.benchmark_problem_id} of {first.benchmark}, rule {first.rule})"
    )
    if not recipe.decontaminate:
        return warning(
            name,
            f"{where}, and every score of the student will say so; set decontaminate to true, or "
            "leave them out",
        )
    if len(hits) == len(prompts):
        return error(name, f"{where}, so nothing would be left; use other prompts")
    return warning(name, f"{where} and are dropped; leave them out to spare their traces")


def _of_model(
    encoder: Encoder, recipe: Recipe, longest: int, probe: Probe, figures: dict[str, float]
) -> list[Check]:
    """What only a model can tell: its size, and whether packed sequences stay apart."""
    try:
        packed = recipe.training.packing
        parameters, difference = probe(encoder.config, longest=longest, packed=packed)
    except DistillerError as failure:
        return [_fault(failure)]
    needed = estimate(encoder.config, parameters, recipe.training, longest)
    figures |= {"parameters": parameters, **needed.to_json()}
    return [_packing(recipe, difference), note("memory", needed.sentence)]


def _packing(recipe: Recipe, difference: float) -> Check:
    name, packed = "packing", recipe.training.packing
    differ = f"logits differ by {difference:.1e} of the largest one"
    if difference > PACKED_TOLERANCE:
        window = "training.max_length_tokens to the base's sliding_window where it has one"
        if packed:
            return error(
                name,
                f"packed sequences see each other, or further than the base does: {differ}; set "
                f"training.packing to false, or {window}",
            )
        return error(
            name,
            f"switched off, but a sequence sees further than the base does: {differ}; set {window},"
            " or use a base with full attention",
        )
    if not packed:
        return note(name, "switched off: every sequence goes through the model alone")
    return ok(
        name,
        f"packed logits equal unpacked ones (largest difference {difference:.1e} of the largest "
        "logit)",
    )
