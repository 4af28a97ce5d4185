"""The protocol: the whole measuring recipe, frozen, with the two fingerprints of PROTOCOLS §1."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evaluator.errors import InputError
from evaluator.records import content_hash

SCHEMA_VERSION = 1


class Config(BaseModel):
    """Base of every configuration: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Sampling(Config):
    """How completions are drawn. Top-k, min-p and repetition penalty are always off."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.6
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_tokens: Annotated[int, Field(ge=1, description="longest response, in tokens")] = 32768
    stop: tuple[str, ...] = ()


class Thinking(Config):
    """Where the thoughts end and the answer part begins (PROTOCOLS §3)."""

    kind: Literal["tags", "field", "none"] = "tags"
    open: str = "<think>"
    close: str = "</think>"
    forced: Annotated[
        bool, Field(description="the response start (the opening tag and a newline) is forced")
    ] = False

    @property
    def response_start(self) -> str:
        """Text put into the model's mouth before it begins."""
        return f"{self.open}\n" if self.forced and self.kind == "tags" else ""


class GradingPolicy(Config):
    """What counts as the same answer where reasonable people differ."""

    boxed_only: bool = False  # answers outside \boxed{} are not looked for
    rounding: bool = False  # a decimal rounding of an exact gold is right
    percent: bool = True  # 50% equals 1/2 and 50 where the gold is a percentage
    units: bool = True  # a missing or extra unit is ignored
    several_boxes: Literal["last", "all"] = "last"


class Protocol(Config):
    """The whole measuring recipe of one benchmark and one model.

    ``prompt`` overrides the benchmark's own text and must hold ``{problem}``; ``chat_template`` is
    a Jinja template for checkpoints that have none, or the literal ``"none"`` for plain text.
    """

    name: str = "r1"
    samples: Annotated[int | None, Field(ge=1, description="n; None: per benchmark")] = None
    seed: int = 0
    sampling: Sampling = Sampling()
    thinking: Thinking = Thinking()
    policy: GradingPolicy = GradingPolicy()
    prompt: str | None = None
    system_prompt: str | None = None
    chat_template: str | None = None
    context_tokens: Annotated[int | None, Field(ge=1)] = None

    @model_validator(mode="after")
    def _prompt_holds_problem(self) -> Protocol:
        if self.prompt is not None and "{problem}" not in self.prompt:
            raise ValueError("prompt must contain {problem}")
        return self


# n per benchmark where the preset leaves it open (PROTOCOLS §1).
R1_SAMPLES = {"aime_2024": 64, "aime_2025": 64, "math_500": 4, "gpqa_diamond": 8, "codeforces": 16}
DEFAULT_SAMPLES = 16

PRESETS: dict[str, Protocol] = {
    "r1": Protocol(name="r1"),
    "r1-cons64": Protocol(name="r1-cons64", samples=64),
    "quick": Protocol(name="quick", samples=4, sampling=Sampling(max_tokens=4096)),
    "greedy": Protocol(name="greedy", samples=1, sampling=Sampling(temperature=0.0, top_p=1.0)),
}


def preset(name: str) -> Protocol:
    """Return the preset called ``name``; raises InputError naming the known ones."""
    try:
        return PRESETS[name]
    except KeyError:
        known = ", ".join(PRESETS)
        raise InputError(f"protocol: no preset is called {name!r}; known: {known}.") from None


def samples_for(protocol: Protocol, benchmark: str) -> int:
    """Samples per problem of ``protocol`` on ``benchmark``."""
    if protocol.samples is not None:
        return protocol.samples
    return R1_SAMPLES.get(benchmark, DEFAULT_SAMPLES)


def measurement_fields(
    protocol: Protocol, *, problems_hash: str, prompt: str, grader: str
) -> dict[str, Any]:
    """What makes two scores comparable, as a flat dict (PROTOCOLS §1).

    ``prompt`` is the text in force (the protocol's or the benchmark's); ``grader`` its name and
    version, as ``math/3``.
    """
    return {
        "version": SCHEMA_VERSION,
        "problems": problems_hash,
        "prompt": prompt,
        "system_prompt": protocol.system_prompt,
        "thinking": protocol.thinking.model_dump(),
        "policy": protocol.policy.model_dump(),
        "grader": grader,
        "sampling": protocol.sampling.model_dump(mode="json"),
    }


def measurement_hash(protocol: Protocol, *, problems_hash: str, prompt: str, grader: str) -> str:
    """SHA-256 of :func:`measurement_fields`."""
    return content_hash(
        measurement_fields(protocol, problems_hash=problems_hash, prompt=prompt, grader=grader)
    )


def run_fingerprint(protocol: Protocol, *, samples: int, engine: dict[str, Any]) -> str:
    """SHA-256 of what else could move a figure a little.

    ``engine`` holds the engine's name, versions, dtype, chat-template hash and hardware.
    """
    return content_hash(
        {
            "version": SCHEMA_VERSION,
            "samples": samples,
            "seed": protocol.seed,
            "chat_template": protocol.chat_template,
            "context_tokens": protocol.context_tokens,
            "engine": engine,
        }
    )
