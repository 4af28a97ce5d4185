"""The recipe: a distillation's whole configuration. Torch-free, frozen, unknown keys refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from evaluator.protocol import PRESETS as PROTOCOL_PRESETS
from evaluator.protocol import Config, Protocol, Rope, Sampling, Thinking


class Prompts(Config):
    """What the teacher is asked."""

    set: Annotated[
        str, Field(description="prompt set: a name, or a JSONL file on the command line")
    ]
    limit: Annotated[int | None, Field(ge=1, description="use only the first so many")] = None


class Price(Config):
    """What the teacher's tokens cost, per million of them; a local teacher has no price."""

    input_per_million: Annotated[float, Field(ge=0, description="prompt tokens")]
    output_per_million: Annotated[float, Field(ge=0, description="generated tokens")]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217")] = "USD"


class WorkedExample(Config):
    """A problem with a long answer, shown to the teacher in mode ``few_shot``."""

    problem: Annotated[str, Field(min_length=1)]
    thoughts: Annotated[str, Field(min_length=1)]
    answer: Annotated[str, Field(min_length=1, description="what stands behind the thoughts")]


class Generation(Config):
    """How traces are drawn (PROTOCOLS §5: several per prompt at T = 0.6–1.0).

    ``mode`` is how a teacher without long thoughts of its own is brought to write them (the paper's
    cold start, §2.3.1); distiller/prompting.py holds the texts.
    """

    engine: Literal["transformers", "vllm", "openai"] = "transformers"
    base_url: Annotated[
        str | None, Field(description="engine openai: the endpoint; the webapp fills it in")
    ] = None
    model: Annotated[
        str | None, Field(description="engine openai: its name there; None: the teacher's")
    ] = None
    samples: Annotated[int, Field(ge=1, le=256, description="traces per prompt")] = 4
    stop_after: Annotated[
        int | None,
        Field(ge=1, description="a prompt with so many right traces is asked no more; None: never"),
    ] = None
    mode: Literal["plain", "few_shot", "reflection"] = "plain"
    examples: Annotated[
        tuple[WorkedExample, ...], Field(description="of mode few_shot; empty: the built-in one")
    ] = ()
    sampling: Sampling = Sampling(temperature=0.8, top_p=0.95, max_tokens=32768)
    seed: int = 0
    shard_prompts: Annotated[int, Field(ge=1, description="prompts per shard")] = 256
    price: Price | None = None

    @model_validator(mode="after")
    def _examples_are_used(self) -> Generation:
        if self.examples and self.mode != "few_shot":
            raise ValueError('examples are shown in mode "few_shot" only; set it or leave them out')
        return self


class FilterChoice(Config):
    """One switched-on filter: its registry name and its parameters."""

    name: str
    parameters: dict[str, Any] = {}


DEFAULT_FILTERS = tuple(
    FilterChoice(name=name)
    for name in ("loops", "truncated", "format", "mixed_language", "answer", "duplicates")
)


class ChatSource(Config):
    """Chats from a file: JSONL (also .gz) of ``{messages: […]}`` or ``{prompt, response}``."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$", description="in counts and ids")] = "general"
    file: Annotated[str, Field(description="path of the file")]
    weight: Annotated[float, Field(gt=0, description="its part of the mix")] = 1.0


class CorpusPlan(Config):
    """What the student reads: the filtered traces, and other chats mixed in.

    Without ``general`` all traces are used. With it, the parts stand to each other as the weights
    do (3 : 1, as in the paper), and the corpus is as large as it can be with nothing used twice.
    """

    general: tuple[ChatSource, ...] = ()
    traces_weight: Annotated[float, Field(gt=0, description="the traces' part of the mix")] = 3.0
    examples: Annotated[int | None, Field(ge=1, description="size of the mix; None: largest")] = (
        None
    )
    seed: Annotated[int, Field(description="of what is drawn from each source")] = 0
    too_long: Annotated[
        Literal["drop", "truncate"],
        Field(description="an example of more than training.max_length_tokens; one that is cut "
              "off has no ending token and teaches not to end"),
    ] = "drop"  # fmt: skip
    chat_template: Annotated[
        str | None,
        Field(description='Jinja, for a base that has none, or instead of its own; "none": plain '
              "text. The student keeps it"),
    ] = None  # fmt: skip
    padding_token: Annotated[
        str | None, Field(description="a token of the vocabulary that the student pads with")
    ] = None

    @field_validator("general")
    @classmethod
    def _names_differ(cls, value: tuple[ChatSource, ...]) -> tuple[ChatSource, ...]:
        names = ["traces", *(source.name for source in value)]
        if len(set(names)) < len(names):
            raise ValueError('every source needs a name of its own, and "traces" is taken')
        return value


class Lora(Config):
    """Low-rank adapters on every linear layer (Hu et al. 2021), merged into the student."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 64
    alpha: Annotated[float, Field(gt=0, description="their output is scaled by alpha / rank")] = 128
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Training(Config):
    """Supervised fine-tuning of the base on the corpus; loss on response tokens only."""

    epochs: Annotated[float, Field(gt=0)] = 2.0
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.05
    min_learning_rate_ratio: Annotated[
        float, Field(ge=0, le=1, description="the cosine ends at this share of the peak")
    ] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    batch_size: Annotated[int, Field(ge=1, description="sequences per optimizer step")] = 32
    micro_batch_tokens: Annotated[
        int, Field(ge=1, description="through the model at once, per process; longer ones go alone")
    ] = 16384
    packing: Annotated[bool, Field(description="several sequences at once, isolated")] = True
    max_length_tokens: Annotated[int, Field(ge=8)] = 32768
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="of the arithmetic and of the student; weights are updated in float32"),
    ] = "float32"
    gradient_checkpointing: Annotated[
        bool, Field(description="layers are computed twice, and memory holds their inputs only")
    ] = True
    lora: Lora | None = None
    rope: Annotated[
        Rope | None, Field(description="more positions than the base has; the student keeps them")
    ] = None
    held_out_share: Annotated[
        float, Field(ge=0, le=0.5, description="of the problems; only the loss on them is measured")
    ] = 0.0
    evaluations: Annotated[int, Field(ge=1, description="of the held-out loss, evenly spread")] = 10
    seed: int = 0
    save_seconds: Annotated[float, Field(gt=0, description="between resume states")] = 60.0


class EvaluationPlan(Config):
    """What is measured at the end, and how."""

    benchmarks: tuple[str, ...] = ()
    protocol: Protocol = PROTOCOL_PRESETS["quick"]
    roles: tuple[Literal["student", "base", "teacher"], ...] = ("student", "base", "teacher")
    engine: Annotated[
        Literal["transformers", "vllm"] | None,
        Field(description="of checkpoints; None: generation's, transformers beside an endpoint"),
    ] = None


class Recipe(Config):
    """Teacher, prompts, filters, training and evaluation of one distillation.

    ``teacher`` and ``base`` are checkpoint names in the webapp and folders on the command line;
    with generation's engine ``openai`` the teacher is an endpoint's name, or any name. ``student``
    names the checkpoint to be made.
    """

    name: str = "distillation"
    teacher: str
    base: str
    student: str
    prompts: Prompts
    prompt: Annotated[str, Field(description="text around a problem; holds {problem}")] = (
        "{problem}"
    )
    thinking: Thinking = Thinking()
    generation: Generation = Generation()
    filters: tuple[FilterChoice, ...] = DEFAULT_FILTERS
    decontaminate: bool = True
    corpus: CorpusPlan = CorpusPlan()
    training: Training = Training()
    evaluation: EvaluationPlan = EvaluationPlan()

    @field_validator("prompt")
    @classmethod
    def _prompt_holds_problem(cls, value: str) -> str:
        if "{problem}" not in value:
            raise ValueError("must contain {problem}")
        return value


# Sizes that take the demonstration's models (distiller/toy.py) through the whole way in minutes on
# two cores. Their chains for three-number problems have about 30 tokens.
DEMO_CHAIN_TOKENS = 64
DEMO_PROMPTS = 3000


def demo_recipe(*, teacher: str, base: str, student: str, prompts: str) -> Recipe:
    """The demonstration: arithmetic with three numbers, from toy teacher to toy student.

    ``prompts`` is a set of ``DEMO_PROMPTS`` problems of ``evaluator.benchmarks.arithmetic``.
    """
    sampling = Sampling(temperature=0.8, top_p=0.95, max_tokens=DEMO_CHAIN_TOKENS)
    measured = Sampling(temperature=0.6, top_p=0.95, max_tokens=DEMO_CHAIN_TOKENS)
    exact = {"answer": {"grader": "integer"}}
    return Recipe(
        name="demo",
        teacher=teacher,
        base=base,
        student=student,
        prompts=Prompts(set=prompts),
        generation=Generation(samples=2, sampling=sampling, shard_prompts=300),
        filters=tuple(
            FilterChoice(name=choice.name, parameters=exact.get(choice.name, {}))
            for choice in DEFAULT_FILTERS
        ),
        training=Training(
            epochs=8,
            learning_rate=4e-3,
            batch_size=32,
            max_length_tokens=128,
            gradient_checkpointing=False,
            save_seconds=10,
        ),
        evaluation=EvaluationPlan(
            benchmarks=("arithmetic",),
            protocol=Protocol(name="demo", samples=16, sampling=measured),
        ),
    )
