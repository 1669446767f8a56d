"""Proposed types of columns that were read as text: numbers, dates, identifiers, marks of missing values."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import polars as pl

from cumulant.data.text import date_text, iso_text, number_text
from cumulant.data.text.identifier_text import PADDED

#: what may go to quarantine before a run stops, so that wrong values in a column of numbers may
_QUARANTINE = 0.01
_MOSTLY_NUMBERS = _MOSTLY_DATES = 0.9
#: whole numbers that may need more than 64 bits
_LONG = r"^[+-]?\d{19,}$"
_MARKS = ("?", "NA", "N/A", "n/a", "NULL", "null", "None", "-", "NaN", "nan")
#: begins an important note
WARNING = "warning: "


class TextTypes:
    """Rules of the text columns of a table, with a note for each assumption. `quoted`: as `FileTable` has them."""

    def __init__(self, rows: pl.DataFrame, quoted: Collection[str] = ()) -> None:
        self._raw, self._quoted = rows, quoted
        self.rules: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []
        self._wrong = 0

    def _texts(self) -> list[str]:
        return [name for name, dtype in self._raw.schema.items() if isinstance(dtype, pl.String)]

    def missing(self) -> list[str]:
        """Texts that mark a missing value; only files can declare them."""
        columns_by_mark: dict[str, list[str]] = {}
        for name in self._texts():
            text = self._raw[name].str.strip_chars()
            for mark in _MARKS:
                if (text == mark).any() and text.n_unique() > 2:
                    columns_by_mark.setdefault(mark, []).append(name)
        for mark, names in columns_by_mark.items():
            self.notes.append(f'"{mark}" is read as missing (in {", ".join(names[:5])})')
        return list(columns_by_mark)

    def propose(self, missing: list[str]) -> None:
        """Types of text columns that hold numbers or dates but for missing marks and blanks."""
        for name in self._texts():
            text = self._raw[name].str.strip_chars()
            text = text.filter(text.is_not_null() & (text != "") & ~text.is_in(missing))
            if not text.len():
                continue
            if text.cast(pl.Float64, strict=False).null_count():
                if not self._formatted(name, text) and not self._nearly_numbers(name, missing):
                    self._dates(name, text, missing)
                continue
            if self._identifiers(name, text):
                continue
            whole = text.cast(pl.Int64, strict=False).null_count() == 0
            if not whole and text.str.contains(_LONG).any():
                self.notes.append(f"{name} stays text: its whole numbers need more than 64 bits")
                continue
            self.rules.setdefault(name, {})["type"] = "int" if whole else "float"
            self.notes.append(f"{name} is read as a number: every value but blanks and missing marks is one")

    def _identifiers(self, name: str, text: pl.Series) -> bool:
        """Whether digits may be identifiers; declared as text with the reason."""
        if text.str.contains(PADDED).any():
            reason = "values have leading zeros, which numbers would lose (as 007 and 7)"
        elif name in self._quoted:
            reason = "its digits are in quotes, and those of other columns are not"
        else:
            return False
        self.rules.setdefault(name, {})["type"] = "str"
        self.notes.append(f"{name} stays text: {reason}; if it is a number: rules: {{{name}: {{type: int}}}}")
        return True

    def _nearly_numbers(self, name: str, missing: list[str]) -> bool:
        """Note a column of numbers with a few other values; few enough go to quarantine."""
        text = self._raw[name].str.strip_chars()
        filled = text.is_not_null() & (text != "") & ~text.is_in(missing)
        plain = text.cast(pl.Float64, strict=False).is_not_null()
        written = filled & number_text.mark_formatted(text).fill_null(False)  # noqa: FBT003
        form = number_text.detect(text.filter(written)) if (written & ~plain).any() else None
        wrong = (filled & ~(plain if form is None else written)).arg_true()
        if wrong.len() > (1 - _MOSTLY_NUMBERS) * int(filled.sum()):
            return False
        count, first = f"{wrong.len():,} of {text.len():,} values", wrong[0] + 1
        message = f"{WARNING}{name} holds numbers, but {count} are none (the first in row {first:,})"
        if self._wrong + wrong.len() > _QUARANTINE * text.len():
            self.notes.append(f"{message}; it stays text: fix them, or declare what they mean under `missing`")
            return True
        self._wrong += wrong.len()
        self.rules.setdefault(name, {}).update(
            {"type": "float"} if form is None else {"type": "float", "number_format": form}
        )
        self.notes.append(f"{message}; it is read as a number, and rows without one there go to quarantine")
        return True

    def _formatted(self, name: str, text: pl.Series) -> bool:
        """Whether all of a text column are formatted numbers; declared where the format is clear."""
        if (form := number_text.detect(text)) is not None:
            self.rules.setdefault(name, {}).update(type="float", number_format=form)
            self.notes.append(f"{name} is text that is read as numbers, written {form}; requests carry plain numbers")
            return True
        if not number_text.is_formatted(text):
            return False
        self.notes.append(
            f"{name} stays text, though it looks like formatted numbers: their format is unclear, their units differ, "
            f"or they may be identifiers; if it is a number: rules: {{{name}: {{type: float, number_format: "
            "'1,234.5'}}, or '1.234,5'"
        )
        return True

    def _dates(self, name: str, text: pl.Series, missing: list[str]) -> None:
        """Dates that are not ISO 8601; declared where the order of day and month is clear."""
        if (form := date_text.detect(text)) is not None:
            kind = "time" if date_text.has_clock(text) else "date"
            self.rules.setdefault(name, {}).update(type=kind, date_format=form)
            self.notes.append(f"{name} is text that is read as {kind}s, written {form}; requests carry ISO 8601")
        elif not self._nearly_dates(name, missing) and date_text.is_date(text):
            self.notes.append(
                f"{name} stays text, though it looks like dates: which part is the day and which the month is unclear; "
                f"if it is one: rules: {{{name}: {{type: date, date_format: 31/12/2024}}}}, or 12/31/2024"
            )

    def _nearly_dates(self, name: str, missing: list[str]) -> bool:
        """Note a column of dates, in any format, with a few other values; few enough go to quarantine."""
        text = self._raw[name].str.strip_chars()
        filled = text.is_not_null() & (text != "") & ~text.is_in(missing)
        read = iso_text.mostly_dates(text.filter(filled), _MOSTLY_DATES)
        if read is None or (wrong := filled.arg_true().filter(~read.are_dates)).len() == 0:
            return False
        count, verb = f"{wrong.len():,} of {text.len():,} values", "does" if wrong.len() == 1 else "do"
        kind, written = "time" if read.clock else "date", "" if read.form is None else f", written {read.form}"
        message = f"{WARNING}{name} holds {kind}s{written}, but {count} {verb} not parse as one (the first in row "
        message += f"{wrong[0] + 1:,})"
        if self._wrong + wrong.len() > _QUARANTINE * text.len():
            self.notes.append(
                f"{message}, more than the {_QUARANTINE:.0%} of the rows that may go to quarantine; it stays text: "
                "fix them, or declare what they mean under `missing`"
            )
            return True
        self._wrong += wrong.len()
        self.rules.setdefault(name, {}).update({"type": kind} | ({"date_format": read.form} if read.form else {}))
        self.notes.append(f"{message}; it is read as a {kind}, and rows with such a value go to quarantine")
        return True
