"""How many requests an endpoint is sent at a time: more while it keeps up, fewer when not."""

from __future__ import annotations

FIRST = 8  # requests under way at the start
TOLERANCE = 2.0  # recent latency over the usual one, above which the limit falls
_RECENT = 1 / 16  # weights of the newest completion
_USUAL = 1 / 512


class Pace:
    """A limit between 1 and ``most``.

    It grows as a TCP window does (RFC 5681): doubled per round trip until the first refusal, by one
    per round trip after it, halved by a refusal. Latency holds it back as in Netflix's gradient
    limiter: when a token takes more than twice as long as it usually did, the limit falls in
    proportion. Latency is counted per generated token, because long answers are not slow ones.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._limit = float(min(FIRST, most))
        self._refused = False
        self._cut_at = float("-inf")
        # Moving sums of seconds and tokens: (recent, usual).
        self._recent: tuple[float, float] | None = None
        self._usual: tuple[float, float] = (0.0, 0.0)

    @property
    def limit(self) -> int:
        """Requests that may be under way now."""
        return max(1, int(self._limit))

    def succeeded(self, seconds: float, tokens: int, *, under_way: int) -> None:
        """A completion of ``tokens`` came after ``seconds``; ``under_way`` counts it too."""
        if self._recent is None:
            self._recent = self._usual = (seconds, float(tokens))
        self._recent = _mixed(self._recent, (seconds, tokens), _RECENT)
        self._usual = _mixed(self._usual, (seconds, tokens), _USUAL)
        recent, usual = (total / max(count, 1e-9) for total, count in (self._recent, self._usual))
        gradient = max(0.5, min(1.0, TOLERANCE * usual / max(recent, 1e-9)))
        if gradient < 1.0:
            self._limit -= 1.0 - gradient  # × gradient, once a whole round trip has come back
        elif 2 * under_way >= self._limit:  # an idle limit proves nothing
            self._limit += 1.0 / self._limit if self._refused else 1.0
        self._limit = max(1.0, min(self._most, self._limit))

    def refused(self, *, sent_at: float, now: float) -> None:
        """A request sent at ``sent_at`` (seconds, any clock) was turned away.

        Refusals of requests that were under way at the last cut say nothing new.
        """
        self._refused = True
        if sent_at >= self._cut_at:
            self._limit = max(1.0, self._limit / 2)
            self._cut_at = now


def _mixed(
    old: tuple[float, float], new: tuple[float, float], weight: float
) -> tuple[float, float]:
    return (
        old[0] + weight * (new[0] - old[0]),
        old[1] + weight * (new[1] - old[1]),
    )
