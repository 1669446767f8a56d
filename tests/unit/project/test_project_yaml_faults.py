"""What an author reads of text that is no YAML."""

from __future__ import annotations

import contextlib
import random

import pytest

from cumulant.core.errors import ProjectFileError
from cumulant.project.file.document import parse_document

WHOLE = "version: 1\ndata:\n  rows:\n    path: a.csv\n    rules: {late: {in: [0, 1]}}\ntraining: {target: late}\n"


def told(text: str) -> tuple[str, str]:
    with pytest.raises(ProjectFileError) as caught:
        parse_document(text, "cumulant.yaml")
    return caught.value.message, caught.value.hint or ""


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "a: 1\nb: [1, 2}\n",
            'cumulant.yaml:2: not valid YAML in column 9: the "[" of column 4 is not closed\n    b: [1, 2}\n            ^',
            'close it with "]"',
        ),
        (
            "a: {b: 1\nc: 2\n",
            ':1: not valid YAML in column 4: the "{" of column 4 is not closed\n    a: {b: 1\n       ^',
            'close it with "}"',
        ),
        (
            "a:\n\tb: 1\n",
            ":2: not valid YAML in column 1: a tab stands where only spaces can\n    \N{RIGHTWARDS ARROW}b: 1\n    ^",
            "indent with spaces, not tabs",
        ),
        (
            "a: 1\nb: 2\na: 3\n",
            ':3: the key "a" is set twice; the first time in line 1\n    a: 3\n    ^',
            "keep one of them",
        ),
        (
            "{x: 1, x: 2}\n",
            '"x" is set twice; the first time in line 1\n    {x: 1, x: 2}\n           ^',
            "keep one of them",
        ),
        ("a: b: c\n", 'column 5: this ":" begins a value where none can stand\n    a: b: c\n        ^', "in quotes"),
        (
            "a: 'x\nb: 1\n",
            ":1: not valid YAML in column 4: the quote that begins here does not end\n    a: 'x\n       ^",
            "close it",
        ),
        ('a: "C:\\data"\n', '"\\d" means nothing in double quotes', "single quotes"),
        ("a: @x\n", 'a value cannot begin with "@"', "put the value in quotes"),
        ("a: {b: 1}}\n", 'there is nothing that this "}" closes', "remove it"),
        (
            "a:\n  b: 1\n c: 2\n",
            "this does not belong to the mapping that begins in line 1",
            "the same number of spaces",
        ),
        ("a: 1\nb\nc: 2\n", 'this key has no ":"', "write key: value"),
    ],
)
def test_a_fault_names_its_place_shows_the_line_and_says_what_to_write(text, message, hint):
    found, next_step = told(text)
    assert message in found
    assert hint in next_step
    assert "while " not in found
    assert "<" not in found


def test_of_a_long_line_the_part_around_the_fault_is_shown():
    message, _ = told(f"a: [{'1, ' * 200}@]\n")
    shown, caret = message.splitlines()[1:]
    assert len(shown) < 120
    assert shown[caret.index("^")] == "@"


def test_every_text_is_read_or_told():
    dice = random.Random(1)
    for _ in range(400):
        at = dice.randrange(len(WHOLE))
        text = WHOLE[:at] + dice.choice("[]{}:,'\"\t\n@%&*!|>-?# x") + WHOLE[at + dice.randrange(2) :]
        with contextlib.suppress(ProjectFileError):
            parse_document(text, "cumulant.yaml")
