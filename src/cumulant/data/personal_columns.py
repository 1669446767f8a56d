"""Which columns are personal: by their names, or by the e-mail addresses and phone numbers in their values."""

from __future__ import annotations

import re

import polars as pl

#: in a column's name, these mean personal data; those of `_NAMES` do so only for text of many values
_PERSONAL = frozenset(
    {"email", "mail", "phone", "mobile", "ssn", "iban", "passport", "surname", "firstname", "lastname"}
)
_PERSONAL_TOO = frozenset({"street", "address", "birth", "dob", "birthday", "username"})
_NAMES = frozenset({"name", "first", "last", "ip", "card", "cc"})
#: values of a column that is named so, at least
_VARIOUS = 20

#: values that are looked at, spread over the column, and characters of each
_VALUES, _CHARACTERS = 10_000, 2_000
_MAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b"
#: international; with the area code in brackets; 3, 3 and 4 digits; an area code that begins with 0
_PHONES = (
    r"(?:^|[^\w+])\+\d(?:[ ().-]{0,2}\d){8,14}\b",
    r"(?:^|\W)\(0?\d{2,4}\) ?\d(?:[ -]?\d){5,8}\b",
    r"(?:^|[^\w.-])\d{3}[-. ]\d{3}[-. ]\d{4}(?:$|[^\w.-])",
    r"(?:^|[^\w.-])0\d{2,4}[ /-]\d(?:[ -]?\d){5,8}(?:$|[^\w.-])",
)
#: the least share of values, and the fewest: codes may look like a phone number, and nothing looks like an address
_KINDS = (("e-mail addresses", _MAIL, 0.001, 1), ("phone numbers", "|".join(_PHONES), 0.01, 2))


def personal_columns(raw: pl.DataFrame, rows: pl.DataFrame, target: str | None) -> tuple[list[str], list[str]]:
    """Columns to keep as hashes only, and notes that say why; `rows` is `raw` under its types."""
    named = [name for name in rows.columns if name != target and _is_named(rows[name])]
    notes = [f"personal by their names, and so shown as hashes only: {', '.join(named)}"] if named else []
    found = []
    for name, dtype in rows.schema.items():
        if name == target or name in named or dtype.is_temporal() or not isinstance(raw.schema[name], pl.String):
            continue
        if (text := _contact_details(raw[name])) is not None:
            found.append(name)
            notes.append(f"personal by its values, and so shown as hashes only: {name} holds {text}")
    return named + found, notes


def named_personal(name: str) -> bool:
    """Whether a name says that the column is personal, whatever its values are."""
    return bool(set(words_of(name)) & (_PERSONAL | _PERSONAL_TOO))


def _is_named(values: pl.Series) -> bool:
    likely = set(words_of(values.name)) & _NAMES and isinstance(values.dtype, pl.String)
    return bool(named_personal(values.name) or likely) and values.n_unique() > _VARIOUS


def words_of(name: str) -> list[str]:
    """The words of a column's name: `TX_DATETIME`, `createdAt`, `card-number`."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def _contact_details(text: pl.Series) -> str | None:
    """What a column of text holds, and in how many of the values that were looked at; None: neither."""
    known = text.drop_nulls()
    looked = known.gather_every(-(-known.len() // _VALUES)) if known.len() > _VALUES else known
    looked = looked.str.slice(0, _CHARACTERS)
    for kind, pattern, share, fewest in _KINDS:
        found = int(looked.str.contains(pattern).sum())
        if found >= max(fewest, share * looked.len()):
            return f"{kind} in {found:,} of {looked.len():,} values"
    return None
