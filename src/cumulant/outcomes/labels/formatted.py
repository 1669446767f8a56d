"""Texts of labels in the number format that the source of the target declares."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cumulant.data.spec import NumberFormat


class UnreadableText(msgspec.Struct, frozen=True):
    """A text that is no number in the declared format."""

    text: str

    def __str__(self) -> str:
        return self.text


def parse_numbers(values: Sequence[object], form: NumberFormat | None) -> list[object]:
    """`values` with texts as the numbers that they are in `form`; empty texts and other values stay as they are."""
    texts = [value.strip() if isinstance(value, str) and value.strip() else None for value in values]
    if form is None or not any(texts):
        return list(values)
    import polars as pl

    from cumulant.data.text import number_text

    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String()})
    read = frame.select(number_text.read(pl.col("text"), form))["text"].to_list()
    return [
        value if text is None else UnreadableText(text) if number is None else number
        for value, text, number in zip(values, texts, read, strict=True)
    ]
