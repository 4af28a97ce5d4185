"""What the services raise when a user's wish cannot be carried out."""

from __future__ import annotations


class UserError(Exception):
    """One sentence that names the field and the remedy; forms and commands show it as it is."""

    def __init__(self, sentence: str, field: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.field = field
