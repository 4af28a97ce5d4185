"""What goes wrong between a client and its server."""

from __future__ import annotations


class ClientError(Exception):
    """One sentence for a person. ``status`` is the server's answer, None where there was none."""

    def __init__(
        self, sentence: str, *, status: int | None = None, field: str | None = None
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status
        self.field = field
