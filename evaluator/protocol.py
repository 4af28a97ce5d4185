"""The protocol: the whole measuring recipe, frozen, with the two fingerprints of PROTOCOLS §1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evaluator.errors import InputError
from evaluator.records import content_hash

SCHEMA_VERSION = 1


class Config(BaseModel):
    """Base of every configuration: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


MOST_SAMPLES = 1024  # beyond 1,029 the ways to choose some of them leave a float's range


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


class Rope(Config):
    """Rotary positions stretched beyond what the checkpoint's config says (Peng et al. 2023).

    ``original_tokens`` are the positions that it was trained on, its config's unless given; there
    are ``factor`` times as many afterwards.
    """

    kind: Literal["yarn", "linear", "dynamic"] = "yarn"
    factor: Annotated[float, Field(gt=1, le=1024)]
    original_tokens: Annotated[int | None, Field(ge=1)] = None


class Protocol(Config):
    """The whole measuring recipe of one benchmark and one model.

    ``prompt`` overrides the benchmark's own text and must hold ``{problem}``; ``chat_template`` is
    a Jinja template for checkpoints that have none, or the literal ``"none"`` for plain text.
    """

    name: str = "r1"
    samples: Annotated[
        int | None, Field(ge=1, le=MOST_SAMPLES, description="n; None: per benchmark")
    ] = None
    seed: int = 0
    sampling: Sampling = Sampling()
    thinking: Thinking = Thinking()
    policy: GradingPolicy = GradingPolicy()
    prompt: str | None = None
    system_prompt: str | None = None
    chat_template: str | None = None
    context_tokens: Annotated[int | None, Field(ge=1)] = None
    rope: Rope | None = None
    drawn_elsewhere: Annotated[
        bool, Field(description="completions made elsewhere: prompt and sampling are not known")
    ] = False

    @model_validator(mode="after")
    def _prompt_holds_problem(self) -> Protocol:
        if self.prompt is not None and "{problem}" not in self.prompt:
            raise ValueError("prompt must contain {problem}")
        return self


# n per benchmark where the preset leaves it open (PROTOCOLS §1; AMC and GSM8K by their size).
R1_SAMPLES = {
    "aime_2024": 64,
    "aime_2025": 64,
    "amc_2023": 64,
    "math_500": 4,
    "gsm8k": 4,
    "gpqa_diamond": 8,
    "codeforces": 16,
}
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


def load(name: str) -> Protocol:
    """The preset called ``name``, or the protocol in a file of that name (JSON or YAML).

    A file's fields stand over the preset r1's; without a ``name`` of its own it is called after
    the file. Raises InputError naming the first field that cannot be used.
    """
    path = Path(name)
    if name in PRESETS or not path.is_file():
        return preset(name)
    fields = _read_fields(path)
    try:
        return Protocol.model_validate({"name": path.stem, **fields})
    except ValidationError as error:
        raise InputError(f"{path.name}: {first_mistake(error)}") from error


def _read_fields(path: Path) -> dict[str, Any]:
    import yaml

    try:
        text = path.read_text("utf-8")
        if path.suffix.lower() in (".yaml", ".yml"):
            fields = yaml.load(text, Loader=_yaml_loader())  # noqa: S506 - a SafeLoader
        else:
            fields = json.loads(text, object_pairs_hook=_unique)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"protocol: {path.name} cannot be read ({error}).") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"protocol: {path.name} is not JSON or YAML ({reason}).") from error
    if not isinstance(fields, dict):
        raise InputError(f"protocol: {path.name} must hold an object of protocol fields.")
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; a key that comes twice would silently lose its first value."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"protocol: the field {twice!r} comes twice; remove one.")
    return fields


def _yaml_loader() -> Any:
    """A safe loader that refuses keys that come twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            _unique([(self.construct_object(key, deep=True), None) for key, _ in node.value])
            return super().construct_mapping(node, deep=deep)

    return Loader


def first_mistake(error: ValidationError) -> str:
    """A validation error as one sentence that names the field."""
    mistake = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in mistake["loc"]) or "the whole"
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{field}: {mistake['msg']}{more}."


def samples_for(protocol: Protocol, benchmark: str) -> int:
    """Samples per problem of ``protocol`` on ``benchmark``."""
    if protocol.samples is not None:
        return protocol.samples
    return R1_SAMPLES.get(benchmark, DEFAULT_SAMPLES)


def engine_settings(protocol: Protocol) -> dict[str, Any]:
    """The engine options that ``protocol`` asks for: context and rope overrides, where it has any.

    An engine that cannot honour one refuses it as an unknown option.
    """
    wanted = protocol.model_dump(include={"context_tokens", "rope"})
    return {name: value for name, value in wanted.items() if value is not None}


def measurement_fields(
    protocol: Protocol, *, problems_hash: str, prompt: str, grader: str
) -> dict[str, Any]:
    """What makes two scores comparable, as a flat dict (PROTOCOLS §1).

    ``prompt`` is the text in force (the protocol's or the benchmark's); ``grader`` its name and
    version, as ``math/4``. What is not known of completions made elsewhere is None: such a score
    never passes for one that was measured here.
    """
    known = not protocol.drawn_elsewhere
    return {
        "version": SCHEMA_VERSION,
        "problems": problems_hash,
        "prompt": prompt if known else None,
        "system_prompt": protocol.system_prompt,
        "thinking": protocol.thinking.model_dump(),
        "policy": protocol.policy.model_dump(),
        "grader": grader,
        "sampling": protocol.sampling.model_dump(mode="json") if known else None,
    }


def measurement_hash(protocol: Protocol, *, problems_hash: str, prompt: str, grader: str) -> str:
    """SHA-256 of :func:`measurement_fields`."""
    return content_hash(
        measurement_fields(protocol, problems_hash=problems_hash, prompt=prompt, grader=grader)
    )


def run_fields(
    protocol: Protocol, *, samples: int | None, engine: dict[str, Any] | None
) -> dict[str, Any]:
    """What else could move a figure a little (PROTOCOLS §1).

    ``engine`` holds the engine's name, versions, dtype, chat-template hash and hardware.
    """
    return {
        "version": SCHEMA_VERSION,
        "samples": samples,
        "seed": protocol.seed,
        "chat_template": protocol.chat_template,
        "context_tokens": protocol.context_tokens,
        "rope": None if protocol.rope is None else protocol.rope.model_dump(),
        "engine": engine,
    }


def run_fingerprint(protocol: Protocol, *, samples: int, engine: dict[str, Any]) -> str:
    """SHA-256 of :func:`run_fields`."""
    return content_hash(run_fields(protocol, samples=samples, engine=engine))
