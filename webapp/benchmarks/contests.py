"""Contests and rating populations of this installation, and what a run is rated by."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from evaluator.contests import Contest as ContestRecord
from evaluator.contests import Population, read_bundle
from evaluator.errors import InputError
from evaluator.records import content_hash
from evaluator.run_rating import Yardstick
from evaluator.store import write_durably
from webapp.benchmarks.models import Contest, RatingPopulation
from webapp.core import store
from webapp.core.errors import UserError
from webapp.core.locks import lock_store
from webapp.core.text import storable

LONGEST_ID = 60


def install_contests(contests: Iterable[ContestRecord]) -> list[Contest]:
    """Install contest bundles, all or none; one whose id is there replaces it.

    The problems' texts and tests are not kept: those are a benchmark's. Raises UserError for a
    bundle that cannot rate a run.
    """
    records = list(contests)
    for record in records:
        if record.scoring is None or not record.problems:
            raise UserError(
                f"file: {record.name} holds standings only, which cannot rate a run; make a bundle "
                "with python -m evaluator import-contest.",
                "file",
            )
        if len(record.id) > LONGEST_ID:
            raise UserError(
                f"file: the id of {record.name[:60]} is longer than {LONGEST_ID}; give a shorter "
                "one.",
                "file",
            )
        if storable(record.id + record.name) != record.id + record.name:
            raise UserError(
                f"file: the name of contest {record.id!r} holds a NUL or half a "
                "character; remove it.",
                "file",
            )
    with transaction.atomic():
        return [_install(record) for record in records]


def _install(record: ContestRecord) -> Contest:
    value = record.bare().to_json()
    digest, relative = _keep("contests", value)
    contest, _ = Contest.objects.update_or_create(
        contest_id=record.id,
        defaults={
            "name": record.name[:200],
            "scoring": str(record.scoring),
            "participants": len(record.standings),
            "problem_count": len(record.problems),
            "content_hash": digest,
            "path": relative,
        },
    )
    return contest


def install_population(population: Population) -> RatingPopulation:
    """Install the ratings that percentiles refer to from now on."""
    value = population.to_json()
    with transaction.atomic():
        digest, relative = _keep("populations", value)
        row, _ = RatingPopulation.objects.update_or_create(
            content_hash=digest,
            defaults={
                "name": population.name[:200],
                "size": len(population.ratings),
                "path": relative,
            },
        )
    return row


def yardstick() -> Yardstick:
    """All installed contests and the newest population."""
    contests = [read_bundle(_read(row.path)) for row in Contest.objects.order_by("contest_id")]
    newest = RatingPopulation.objects.first()
    population = None if newest is None else Population.from_json(_read(newest.path))
    return Yardstick(tuple(contests), population)


def _keep(folder: str, value: dict[str, Any]) -> tuple[str, str]:
    """Write ``value`` into the store, named after its content; (hash, path in the store).

    Within the transaction that makes its row: no sweep takes the file before the row is seen.
    """
    lock_store()
    digest = content_hash(value)
    relative = f"{folder}/{digest}.json"
    path = Path(settings.MEDIA_ROOT) / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, json.dumps(value).encode())
    store.publish(relative)
    return digest, relative


def _read(relative: str) -> Any:
    try:
        return json.loads(store.fetch(relative).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"contests: {relative} cannot be read ({error}); import it again."
        ) from None
