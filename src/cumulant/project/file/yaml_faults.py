"""What is wrong with text that is no YAML: what, where, and what to write instead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ruamel.yaml.error import MarkedYAMLError

#: characters of a long line that are shown before and after the fault
_BEFORE, _AFTER = 60, 40
_OPENED = re.compile(r"expected ',' or '([\]}])'")
_NO_BEGIN = re.compile(r"found character '(.+)' that cannot start any token")
_FOUND = re.compile(r"but found '(.+)'")
_ESCAPE = re.compile(r"found unknown escape character '(.+)'")


class YamlFault(NamedTuple):
    """Line and column from 1, what is wrong there, and what to do."""

    line: int
    column: int
    text: str
    hint: str


def yaml_fault(error: MarkedYAMLError) -> YamlFault:
    """What the parser's error means to the author of the text."""
    problem, context = str(error.problem or ""), str(error.context or "")
    here = error.problem_mark or error.context_mark
    line, column = (here.line + 1, here.column + 1) if here else (1, 1)
    begun = error.context_mark or here
    first, place = (begun.line + 1, begun.column + 1) if begun else (line, column)
    if (opened := _OPENED.search(problem)) is not None:
        bracket = {"]": "[", "}": "{"}[opened[1]]
        # Of a bracket that is open at the end of its line, the next lines say nothing.
        at = (line, column) if first == line else (first, place)
        text = f'the "{bracket}" of column {place} is not closed'
        return YamlFault(*at, text, f'close it with "{opened[1]}", and write "," between its parts')
    if "quoted scalar" in context and (escape := _ESCAPE.search(problem)) is not None:
        text = f'"\\{escape[1]}" means nothing in double quotes'
        return YamlFault(line, column, text, "use single quotes, which take a backslash as it is")
    if "quoted scalar" in context:
        return YamlFault(first, place, "the quote that begins here does not end", "close it with the same quote")
    if (begin := _NO_BEGIN.search(problem)) is not None:
        if begin[1] in ("\\t", "\t"):
            return YamlFault(line, column, "a tab stands where only spaces can", "indent with spaces, not tabs")
        return YamlFault(line, column, f'a value cannot begin with "{begin[1]}"', "put the value in quotes")
    text, hint = _meaning(problem, context, first)
    return YamlFault(line, column, text, hint)


def _meaning(problem: str, context: str, first: int) -> tuple[str, str]:
    """The text and the hint for what is wrong at the place that the parser names; `first`: the line that began it."""
    if "mapping values are not allowed" in problem:
        return (
            'this ":" begins a value where none can stand',
            'put a text that holds ": " in quotes; write a mapping in lines of its own below its key',
        )
    if "sequence entries are not allowed" in problem:
        return 'this "-" begins a list where none can stand', "write each item in a line of its own below the key"
    if "could not find expected ':'" in problem:
        return 'this key has no ":"', "write key: value"
    if "expected <block end>" in problem:
        match = _FOUND.search(problem)
        if match is not None and match[1] in "]},":
            return f'there is nothing that this "{match[1]}" closes or parts', "remove it, or put the text in quotes"
        kind = "list" if "collection" in context else "mapping"
        return f"this does not belong to the {kind} that begins in line {first}", (
            "indent all keys of a mapping, and all items of a list, by the same number of spaces"
        )
    return problem or "this is not YAML", "check the indentation, brackets and quotes at the mark"


def excerpt(text: str, line: int, column: int | None) -> str:
    """The line, and a caret under `column` where it is known; empty where there is no such line.

    A tab is shown as an arrow, so that the caret stands under its character.
    """
    lines = text.split("\n")
    if not 1 <= line <= len(lines) or not lines[line - 1].strip():
        return ""
    written = lines[line - 1].rstrip().replace("\t", "\N{RIGHTWARDS ARROW}")
    at = (column or 1) - 1
    begin = max(0, at - _BEFORE)
    shown = written[begin : at + _AFTER]
    head, tail = "… " if begin else "", " …" if at + _AFTER < len(written) else ""
    caret = "" if column is None else f"\n    {' ' * (len(head) + at - begin)}^"
    return f"\n    {head}{shown}{tail}{caret}"
