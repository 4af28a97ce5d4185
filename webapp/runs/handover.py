"""What a stage's child needs of the store, and what it leaves there, where hosts share no disk.

With a shared disk all of this does nothing: what a spec names lies where it says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings

from webapp.core import store
from webapp.core.errors import UserError
from webapp.runs import files, resuming
from webapp.runs.models import Stage

# The fields of a spec that name files or folders of the store (docs/architecture.md, Specs).
FIELDS = (
    "problems_file", "prompts_file", "completions_file", "segment_files", "benchmark_files",
    "base_model", "corpus",
)  # fmt: skip
PORTABLE = "spec.portable.json"  # a judge's spec, for a host that cannot ask the database


@contextmanager
def in_use() -> Iterator[None]:
    """Keep what is brought meanwhile, until the stage's child has ended."""
    if not store.is_remote():
        yield
        return
    with store.cache().holding():
        yield


def bring(spec: Path) -> None:
    """Have every file that a spec names on this host. Raises StoreError or UserError."""
    if store.is_remote():
        told = json.loads(spec.read_bytes())
        for path in _named(told):
            store.fetch(store.relative_of(Path(path)))
        if "resume" in told:
            resuming.bring(Path(told["resume"]))


def bring_segments(stage: Stage, names: Iterable[str]) -> None:
    """Have segments of earlier leases here, which other hosts may have made."""
    if store.is_remote():
        for name in names:
            files.segment_path(stage, name)


def give(stage: Stage, result: Mapping[str, Any]) -> dict[str, Any]:
    """Put what a shard made beside its segments into the store, before it counts.

    Returns the result as any host can read it, its folders by the store's names. Raises StoreError.
    """
    told = dict(result)
    for field in ("corpus", "checkpoint"):
        if field in told:
            told[field] = store.relative_of(Path(told[field]))
    if not store.is_remote():
        return told
    if "corpus" in told:  # with the rows that lie beside it
        store.publish(told["corpus"])
        for each in sorted(Path(result["corpus"]).parent.iterdir()):
            if each.is_file():
                store.publish(store.relative_of(each))
    if "checkpoint" in told:
        store.publish(f"checkpoints/{told['content_hash']}", Path(result["checkpoint"]))
    give_report(stage)
    return told


def trained(result: Mapping[str, Any]) -> tuple[Path, bool]:
    """The folder of a trained checkpoint, and whether it is a shard's own, to be moved away.

    Whoever follows up the training may be another host than the one that did it. Raises StoreError.
    """
    folder = store.path_of(result["checkpoint"])
    if folder.is_dir():
        return folder, True
    return store.fetch(f"checkpoints/{result['content_hash']}"), False


def give_report(stage: Stage) -> None:
    """Put a preflight's report into the store, which also one that failed has written."""
    path = files.stage_folder(stage) / files.PREFLIGHT
    if store.is_remote() and path.is_file():
        store.put(store.relative_of(path), path.read_bytes())


def offer_spec(stage: Stage, spec: Mapping[str, Any]) -> None:
    """Leave a spec for a worker that may not ask the database what its child has to be told."""
    if store.is_remote():
        told = {"root": str(settings.MEDIA_ROOT), "spec": spec}
        name = store.relative_of(files.stage_folder(stage) / PORTABLE)
        store.put(name, json.dumps(told, ensure_ascii=False).encode())


def take_spec(stage: Stage) -> Path:
    """The spec that was left for us, with this host's paths and the files that it names."""
    path = files.stage_folder(stage) / "spec.json"
    if not store.is_remote():
        return path
    found = store.get(store.relative_of(path.with_name(PORTABLE)))
    if found is None:
        raise UserError(f"store: the spec of stage {stage.pk} is missing; retry the run.")
    told = json.loads(found)
    spec: dict[str, Any] = told["spec"]
    for field in (*FIELDS, "stage_folder", "segments_folder"):
        if field in spec:
            spec[field] = _moved(spec[field], Path(told["root"]))
    files.segments_folder(stage).mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(spec, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def _named(spec: Mapping[str, Any]) -> Iterator[str]:
    """The paths in the fields that hold one, several, or several with names."""
    for field in FIELDS:
        match spec.get(field):
            case str(path):
                yield path
            case list(paths):
                yield from paths
            case dict(by_name):
                yield from by_name.values()
    if "base_model" in spec:  # whose children read the chats, too
        yield from (source["file"] for source in spec["recipe"]["corpus"]["general"])
    engine = spec.get("engine", {})
    if engine.get("name") != "openai" and str(engine.get("model", "")).startswith("/"):
        yield engine["model"]


def _moved(value: Any, root: Path) -> Any:
    """A path below another host's root as it is below ours."""
    if isinstance(value, list):
        return [_moved(each, root) for each in value]
    if isinstance(value, dict):
        return {name: _moved(each, root) for name, each in value.items()}
    return str(Path(settings.MEDIA_ROOT) / Path(value).relative_to(root))
