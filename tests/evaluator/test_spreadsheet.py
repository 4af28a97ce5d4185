"""CSV in the hands of a spreadsheet, whatever separates cells in its language."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evaluator.spreadsheet import csv_text

SIGNS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.text(
    alphabet="=+-@;,\t\r\n\"' a1\x00\uff1d", max_size=8
)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@given(rows=st.lists(st.lists(TEXTS, min_size=3, max_size=3), min_size=1, max_size=3))
@example(rows=[["a", '1;=HYPERLINK("http://x")', ""]])
@example(rows=[["a", 'b;"=1+1"', "c\n=1+1"]])
@example(rows=[["\t=1", " =1", "\r\n@x"]])
def test_no_text_is_a_formula(separator: str, rows: list[list[str]]) -> None:
    made = csv_text(["key", "answer", "reason"], rows)
    for line in csv.reader(io.StringIO(made, newline=""), delimiter=separator):
        for cell in line:
            assert not cell.strip().startswith(SIGNS), cell


@given(st.lists(st.tuples(TEXTS, st.floats(-9, 9), st.none()), max_size=5))
def test_nothing_is_lost_but_apostrophes_added(rows: list[Any]) -> None:
    text = csv_text(["=name", "value", "none"], rows)
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read[0] == ["'=name", "value", "none"]
    assert len(read) == len(rows) + 1
    for (name, value, _), (written, number, blank) in zip(rows, read[1:], strict=True):
        assert not written.startswith((*SIGNS, "\t", "\r", "\n"))
        assert written.replace("'", "") == name.replace("'", "").replace("\x00", "\ufffd")
        assert float(number) == value
        assert blank == ""


def test_numbers_and_plain_texts_are_what_they_were() -> None:
    made = csv_text(["n", "t"], [[-1.5, "x-1; y=2"], [None, "(0; 1)"], [True, "a@b"]])
    assert made.splitlines()[1:] == ["-1.5,x-1; y=2", ",(0; 1)", "True,a@b"]
