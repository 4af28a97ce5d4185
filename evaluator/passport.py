"""The protocol passport: what stands beside a score, and how two of them differ (PROTOCOLS §1)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluator import benchmarks, graders
from evaluator.errors import InputError
from evaluator.protocol import (
    PRESETS,
    Protocol,
    load,
    measurement_fields,
    run_fields,
    samples_for,
)
from evaluator.records import content_hash


@dataclass(frozen=True, slots=True)
class Passport:
    """A score's measurement fields, and what else could move it a little. Nested, plain JSON."""

    measurement: Mapping[str, Any]
    run: Mapping[str, Any]

    @property
    def measurement_hash(self) -> str:
        """What makes two scores comparable."""
        return content_hash(self.measurement)

    @property
    def run_fingerprint(self) -> str:
        """What else could move a figure a little."""
        return content_hash(self.run)

    def to_json(self) -> dict[str, Any]:
        """The two parts as ``metrics.json`` carries them."""
        return {"measurement": dict(self.measurement), "run": dict(self.run)}


@dataclass(frozen=True, slots=True)
class Difference:
    """A field, in dotted form, that two passports hold different values of."""

    field: str
    first: Any
    second: Any


def make(
    protocol: Protocol,
    *,
    benchmark: str,
    problems_hash: str,
    samples: int,
    engine: Mapping[str, Any],
) -> Passport:
    """The passport of a measurement; the two hashes of ``evaluator.protocol`` are made of it."""
    spec = benchmarks.get(benchmark)
    return Passport(
        measurement_fields(
            protocol,
            problems_hash=problems_hash,
            prompt=protocol.prompt or spec.prompt,
            grader=graders.get(spec.grader).identity,
        ),
        run_fields(protocol, samples=samples, engine=dict(engine)),
    )


def of_protocol(protocol: Protocol, benchmark: str | None = None) -> Passport:
    """What is known of a measurement before it is made; with ``benchmark``, its defaults too."""
    prompt, grader, samples = protocol.prompt, None, protocol.samples
    if benchmark is not None:
        spec = benchmarks.get(benchmark)
        prompt, samples = prompt or spec.prompt, samples_for(protocol, spec.name)
        grader = graders.get(spec.grader).identity
    measurement = measurement_fields(
        protocol, problems_hash="", prompt=prompt or "", grader=grader or ""
    )
    measurement["prompt"] = prompt
    del measurement["problems"]
    if grader is None:
        del measurement["grader"]
    run = run_fields(protocol, samples=samples, engine=None)
    del run["engine"]
    return Passport(measurement, run)


def read_both(first: str, second: str, benchmark: str | None = None) -> tuple[Passport, Passport]:
    """The passports that two names stand for.

    Each is a preset, a protocol file, a metrics.json or the folder of a graded run. A protocol
    takes what it leaves open from ``benchmark``, or from the benchmark of the other's metrics.
    Raises InputError for anything else.
    """
    found = [_metrics(first), _metrics(second)]
    known = benchmark or next((str(metrics["benchmark"]) for metrics in found if metrics), None)
    one, other = (
        of_metrics(metrics, name) if metrics else of_protocol(load(name), known)
        for name, metrics in zip((first, second), found, strict=True)
    )
    return one, other


def of_metrics(metrics: Mapping[str, Any], name: str) -> Passport:
    """The passport in a metrics.json; raises InputError where it carries none."""
    parts = [metrics.get("measurement"), metrics.get("run")]
    if not all(isinstance(part, Mapping) for part in parts):
        raise InputError(f"{name}: it carries no measurement fields; score it again.")
    return Passport(*parts)  # type: ignore[arg-type]


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Fields of which both hold a value, and not the same one; in order of name."""
    shared = first.keys() & second.keys()
    return list(_differing({k: first[k] for k in shared}, {k: second[k] for k in shared}, ""))


def _differing(
    first: Mapping[str, Any], second: Mapping[str, Any], prefix: str
) -> Iterator[Difference]:
    for name in sorted(first.keys() | second.keys()):
        one, other = first.get(name), second.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differing(one, other, f"{prefix}{name}.")
        elif _plain(one) != _plain(other):
            yield Difference(prefix + name, one, other)


def _plain(value: Any) -> Any:
    """A tuple becomes a list once it has been through JSON."""
    return list(value) if isinstance(value, tuple) else value


def _metrics(name: str) -> dict[str, Any] | None:
    """The content of a metrics.json or of a run's; None for what should be a protocol."""
    path = Path(name)
    if name in PRESETS or not path.exists():
        return None
    if path.is_dir():
        path = path / "metrics.json"
        if not path.is_file():
            raise InputError(f"{name}: no graded run is in it (there is no metrics.json).")
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError):
        return None  # YAML, or a broken protocol: its own reader says which
    return value if isinstance(value, dict) and "pass@1" in value else None
