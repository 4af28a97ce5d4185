"""What administrators add through pages and the API: benchmarks, prompt sets, yardsticks.

A file that came is read under a name of ours and is gone afterwards. What is larger than a web
process should hold is for the management commands, on the server itself.
"""

from __future__ import annotations

import gzip
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from django.core.files.uploadedfile import UploadedFile
from django.db import transaction

from evaluator import benchmarks
from evaluator.benchmarks import hub
from evaluator.benchmarks.files import read_problems
from evaluator.errors import InputError
from evaluator.records import Problem as ProblemRecord
from evaluator.run_rating import Yardstick
from webapp.benchmarks.contests import install_contests, install_population
from webapp.benchmarks.models import Benchmark, Contest, PromptSet, RatingPopulation
from webapp.benchmarks.services import install_benchmark, install_prompt_set
from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.core.text import storable
from webapp.runs.ratings import rate_again

MOST_BYTES = 512 << 20  # of a file's text, unpacked
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".zip")
_CHUNK = 1 << 20

if TYPE_CHECKING:
    File = UploadedFile[Any]


@dataclass(frozen=True, slots=True)
class Added:
    """What a yardstick's file brought."""

    contests: list[Contest]
    population: RatingPopulation | None
    rated_again: int  # evaluations of programs


def add_benchmark(by: User, name: str, file: File) -> Benchmark:
    """Install a version of a benchmark, which has to be what it is known to be. Raises UserError.

    The same problems give the version that is there.
    """
    problems = _problems(file, name, "name")
    try:
        problems = hub.checked(name, problems)
    except InputError as error:
        raise UserError(f"file: {error}", "file") from None
    with transaction.atomic():
        row = install_benchmark(name, problems, source=storable(_called(file)))
        audit.record(by, "benchmark.install", row, version=row.content_hash[:8])
    return row


def add_prompt_set(by: User, name: str, like: str, file: File) -> PromptSet:
    """Install a version of a prompt set; ``like`` names the benchmark whose columns the file has.

    The same prompts give the version that is there. Raises UserError.
    """
    problems = _problems(file, like, "like")
    with transaction.atomic():
        row = install_prompt_set(name, problems)
        audit.record(by, "prompt_set.install", row, version=row.content_hash[:8])
    return row


def add_yardstick(by: User, given: Yardstick) -> Added:
    """Install contests and population, all or none, and rate what they concern.

    Raises UserError.
    """
    with transaction.atomic():
        contests = install_contests(given.contests)
        for contest in contests:
            audit.record(by, "contest.install", contest)
        population = None
        if given.population is not None:
            population = install_population(given.population)
            audit.record(by, "population.install", population)
    return Added(contests, population, rate_again())


def _problems(file: File, like: str, field: str) -> list[ProblemRecord]:
    """The problems in a file of benchmark ``like``, which ``field`` named. Raises UserError."""
    try:
        benchmarks.get(like)
    except InputError as error:
        said = str(error).removeprefix("benchmark: ")
        raise UserError(f"{field}: {said}", field) from None
    name = _called(file)
    suffix = next((each for each in SUFFIXES if name.lower().endswith(each)), None)
    if suffix is None:
        raise UserError(f"file: {name[:80]} is none of {', '.join(SUFFIXES)}.", "file")
    with _kept(file, suffix) as path:
        try:
            return read_problems(path, like)
        except InputError as error:
            raise UserError(f"file: {error}".replace(path.name, name), "file") from None


@contextmanager
def _kept(file: File, suffix: str) -> Iterator[Path]:
    """The file under a name of ours, unpacked, as long as one looks at it."""
    with tempfile.TemporaryDirectory(prefix="retort-") as folder:
        path = Path(folder) / f"problems{suffix.removesuffix('.gz')}"
        file.seek(0)
        source: Any = gzip.GzipFile(fileobj=file) if suffix.endswith(".gz") else file
        try:
            with path.open("wb") as target:
                _copy(source, target)
            if suffix == ".parquet":
                _check_table(path)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"file: it cannot be unpacked ({error}).", "file") from None
        yield path


def _copy(source: Any, target: IO[bytes]) -> None:
    """Copy to the end; a packed bomb ends at the limit."""
    size = 0
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        if size > MOST_BYTES:
            raise _too_large()
        target.write(chunk)


def _check_table(path: Path) -> None:
    """Refuse a Parquet file that says to hold more than may be taken in."""
    import pyarrow
    import pyarrow.parquet

    try:
        told = pyarrow.parquet.read_metadata(path)
        size = sum(told.row_group(at).total_byte_size for at in range(told.num_row_groups))
    except (pyarrow.ArrowException, OSError):
        return  # whoever reads it says what is wrong with it
    if size > MOST_BYTES:
        raise _too_large()


def _too_large() -> UserError:
    return UserError(
        f"file: more than {MOST_BYTES >> 20} MiB, unpacked; import it on the server with "
        "manage.py import_benchmark or import_prompts.",
        "file",
    )


def _called(file: File) -> str:
    return Path(file.name or "file").name
