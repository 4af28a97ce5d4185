"""What a person chose to see on the leaderboard: read from the address, and only from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from django.http import QueryDict

from webapp.core.text import storable

SIZES: Mapping[str, tuple[str, float, float]] = {  # title, parameters from, and below
    "tiny": ("below 1B", 0, 1e9),
    "small": ("1B to 3B", 1e9, 3e9),
    "medium": ("3B to 10B", 3e9, 10e9),
    "large": ("10B to 40B", 10e9, 40e9),
    "huge": ("40B and more", 40e9, float("inf")),
}
KINDS: Mapping[str, str] = {"student": "students", "base": "bases"}
PUBLISHED: Mapping[str, str] = {"": "with published figures", "no": "without", "only": "only those"}
_TEXTS = ("project", "family", "teacher", "owner", "tag")


@dataclass(frozen=True, slots=True)
class Choice:
    """Columns, order and filters; blank is no filter."""

    benchmark: str = ""
    keys: tuple[str, ...] = ()
    sort: str = ""
    flipped: bool = False  # the other way round: worst scores first, names from Z
    project: str = ""  # whose runs' scores; a name
    family: str = ""
    teacher: str = ""
    owner: str = ""
    tag: str = ""
    size: str = ""
    kind: str = ""
    since: date | None = None
    until: date | None = None
    same: bool = False  # the usual measurement of each benchmark only
    published: str = ""
    said: tuple[str, ...] = field(default=())  # what could not be read

    @property
    def filters(self) -> int:
        """How many filters are set."""
        texts = (self.family, self.teacher, self.owner, self.tag, self.size, self.kind)
        return sum(
            map(bool, (self.project, *texts, self.since, self.until, self.same, self.published))
        )

    @property
    def is_narrowed(self) -> bool:
        """Whether a filter is set whose switch stands nowhere but among the filters."""
        return self.filters > bool(self.published)


def read(query: QueryDict) -> Choice:
    """The choice in an address; what cannot be read is left out, with a sentence."""
    said: list[str] = []

    def one_of(key: str, known: Mapping[str, object]) -> str:
        given = query.get(key, "")
        if given and given not in known:
            said.append(f"{key}: “{given[:40]}” is none of {', '.join(k for k in known if k)}.")
        return given if given in known else ""

    def day(key: str) -> date | None:
        given = query.get(key, "")
        try:
            return date.fromisoformat(given) if given else None
        except ValueError:
            said.append(f"{key}: “{given[:40]}” is no date; write it as 2026-11-21.")
            return None

    sort = query.get("sort", "")
    texts = {key: storable(query.get(key, ""))[:200] for key in _TEXTS}
    return Choice(
        benchmark=storable(query.get("benchmark", ""))[:60],
        keys=tuple(part for value in query.getlist("c") for part in value.split(",") if part)[:100],
        sort=sort.removeprefix("-")[:100],
        flipped=sort.startswith("-"),
        size=one_of("size", SIZES),
        kind=one_of("kind", KINDS),
        since=day("since"),
        until=day("until"),
        same=query.get("same") == "1",
        published=one_of("published", PUBLISHED),
        **texts,
        said=tuple(said),
    )
