"""The registry of benchmarks: one file each and one line here. Torch-free."""

from __future__ import annotations

from evaluator.benchmarks import (
    aime,
    amc,
    arithmetic,
    codeforces,
    countdown,
    custom,
    gpqa,
    gsm8k,
    math500,
)
from evaluator.benchmarks.spec import BenchmarkSpec, HubSource
from evaluator.errors import InputError

__all__ = ["BenchmarkSpec", "HubSource", "get", "names"]

_REGISTRY: dict[str, BenchmarkSpec] = {
    spec.name: spec
    for spec in (
        aime.AIME_2024,
        aime.AIME_2025,
        math500.SPEC,
        gpqa.SPEC,
        codeforces.SPEC,
        gsm8k.SPEC,
        amc.SPEC,
        aime.AIME_1983_2023,
        arithmetic.SPEC,
        countdown.SPEC,
        custom.SPEC,
    )
}


def names() -> list[str]:
    """Names of all known benchmarks."""
    return list(_REGISTRY)


def get(name: str) -> BenchmarkSpec:
    """Return the benchmark called ``name``; raises InputError naming the known ones."""
    try:
        return _REGISTRY[name]
    except KeyError:
        known = ", ".join(_REGISTRY)
        raise InputError(f"benchmark: none is called {name!r}; known: {known}.") from None
