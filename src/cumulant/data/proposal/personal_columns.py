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

#: values that are searched, spread over the column, and characters of each
_VALUES, _CHARACTERS = 10_000, 2_000
_MAIL = r"[\w.%+-]+@[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}\b"
_INTERNATIONAL = r"(?:^|[^\w+])\+\d(?:[ ().-]{0,2}\d){8,14}\b"
#: with the area code in brackets; an area code that begins with 0; pairs of digits
_NATIONAL = (
    r"(?:^|\W)\((?:0\d{1,4}|\d{3})\) ?\d(?:[ -]?\d){5,8}\b",
    r"(?:^|\W)\(\d{2}\) ?\d(?:[ -]?\d){7,8}\b",
    r"(?:^|[^\w.-])0\d{2,4}[ /-]\d(?:[ -]?\d){5,8}(?:$|[^\w.-])",
    r"(?:^|[^\w.-])0\d(?:(?: \d\d){4}|(?:\.\d\d){4}|(?:-\d\d){4})(?:$|[^\w.-])",
)
#: 3, 3 and 4 digits, as in North America, where neither an area nor an exchange begins with 0 or 1
_THREE_PARTS = r"(?:^|[^\w.-])\d{3}[-. ]\d{3}[-. ]\d{4}(?:$|[^\w.-])"
_AMERICAN = r"(?:^|[^\w.-])[2-9]\d\d[-. ][2-9]\d\d[-. ]\d{4}(?:$|[^\w.-])"
#: of the values of three parts, so that they are phone numbers and no codes
_LEAST_AMERICAN = 0.95
#: of cards and parcels
_GROUPS_OF_FOUR = r"\b\d{4}(?: \d{4}){2,}\b"
#: values from which on a column is personal. A share alone is too many addresses in a large table; of phone numbers it
#: is needed, because some codes look like one
_LEAST_SHARE, _LEAST_MAILS, _LEAST_PHONES = 0.01, 3, 2


def personal_columns(raw: pl.DataFrame, rows: pl.DataFrame, target: str | None) -> tuple[list[str], list[str]]:
    """Columns to store as hashes only, and notes with reasons; `rows` is `raw` under its types."""
    named = [name for name in rows.columns if name != target and _is_named(rows[name])]
    notes = [f"personal by their names, and so shown as hashes only: {', '.join(named)}"] if named else []
    by_value = []
    for name, dtype in rows.schema.items():
        if name == target or name in named or dtype.is_temporal() or not isinstance(raw[name].dtype, pl.String):
            continue
        if (details := _contact_details(raw[name])) is None:
            continue
        text, enough = details
        if enough:
            by_value.append(name)
            notes.append(f"personal by its values, and so shown as hashes only: {name} holds {text}")
        else:
            notes.append(f"{name} holds {text}, too few to hide it; add it to `personal` to show hashes only")
    return named + by_value, notes


def is_personal_name(name: str) -> bool:
    """Whether a name marks its column as personal, whatever its values are."""
    return bool(set(words_of(name)) & (_PERSONAL | _PERSONAL_TOO))


def _is_named(values: pl.Series) -> bool:
    likely = set(words_of(values.name)) & _NAMES and isinstance(values.dtype, pl.String)
    return bool(is_personal_name(values.name) or likely) and values.n_unique() > _VARIOUS


def words_of(name: str) -> list[str]:
    """The words of a column's name: `TX_DATETIME`, `createdAt`, `card-number`."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def _contact_details(text: pl.Series) -> tuple[str, bool] | None:
    """The kind of contact data in a column of text, the number of such values, and whether that makes it personal."""
    known = text.drop_nulls()
    sample = known.gather_every(-(-known.len() // _VALUES)) if known.len() > _VALUES else known
    sample = sample.str.slice(0, _CHARACTERS)
    mails, least = int(sample.str.contains(_MAIL).sum()), _LEAST_SHARE * sample.len()
    if mails and mails >= min(_LEAST_MAILS, least):
        return f"e-mail addresses in {mails:,} of {sample.len():,} values", True
    phones = _phones(sample)
    if phones >= max(_LEAST_PHONES, least):
        return f"phone numbers in {phones:,} of {sample.len():,} values", True
    return (f"e-mail addresses in {mails:,} of {sample.len():,} values", False) if mails else None


def _phones(sample: pl.Series) -> int:
    plain = sample.str.replace_all(_GROUPS_OF_FOUR, "")
    matches = sample.str.contains(_INTERNATIONAL) | plain.str.contains("|".join(_NATIONAL))
    american, parts = plain.str.contains(_AMERICAN), plain.str.contains(_THREE_PARTS)
    if int(american.sum()) >= _LEAST_AMERICAN * int(parts.sum()):
        matches |= american
    return int(matches.sum())
