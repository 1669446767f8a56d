"""Text for terminals and pipes whose encoding lacks some characters: a look-alike instead of an error."""

from __future__ import annotations

import codecs
import io
import sys

_HANDLER = "cumulant.lookalike"
_LOOKALIKES = str.maketrans(
    "✓✗–—…·●○━┄─│├└↑↓→←█░≤≥×µ°“”’",
    '+x--..*o=--||`^v><#.<>xuo""\'',
)


def lookalikes(error: UnicodeError) -> tuple[str, int]:
    """For `codecs.register_error`: one ASCII character for each that cannot be written, `?` where none is like it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_LOOKALIKES)
    return "".join(letter if letter.isascii() else "?" for letter in text), error.end


def write_lookalikes() -> None:
    """Let standard output and error take any text, whatever their encoding; for the start of a program."""
    codecs.register_error(_HANDLER, lookalikes)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)
