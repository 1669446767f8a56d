"""Formatted numbers in texts: `1,234.50`, `1.234,50`, `$3`, `3.50 EUR`, `45 %`, `(100)`."""

from __future__ import annotations

import polars as pl

from cumulant.data.spec import NumberFormat

_SPACE = " \u00a0\u202f"
#: what may group thousands in either format
_EITHER = f"{_SPACE}'’"
#: ISO 4217 codes that are read as a currency sign
_CODES = "EUR|USD|GBP|CHF|JPY|CNY|INR|BRL|CAD|AUD|SEK|NOK|DKK|PLN|CZK|HUF|TRY|ZAR|MXN|KRW|RUB|SGD|HKD|NZD"
_CURRENCY = rf"(?:\p{{Sc}}|{_CODES})"
_MIN_WIDTH = 3
_MARKS: dict[NumberFormat, tuple[str, str]] = {"1,234.5": (",", "."), "1.234,5": (".", ",")}


def pattern(form: NumberFormat) -> str:
    """What a number in that format looks like, with its sign, currency or percent sign, or in brackets."""
    group, point = _MARKS[form]
    digits = rf"(?:[1-9]\d{{0,2}}(?:[{group}{_EITHER}]\d{{3}})+|\d+)(?:\{point}\d+)?"
    signed = rf"[-+]?\s*{_CURRENCY}?\s*[-+]?\s*{digits}\s*(?:%|{_CURRENCY})?"
    return rf"^(?:{signed}|\(\s*{signed}\s*\))$"


def read(text: pl.Expr, form: NumberFormat) -> pl.Expr:
    """`text` without blanks around it as float64; null where it is no number in that format."""
    group, point = _MARKS[form]
    beside = rf"[{group}{_EITHER}\p{{Sc}}%()+-]|{_CODES}"
    digits = text.str.replace_all(beside, "").str.replace(point, ".", literal=True)
    number = digits.cast(pl.Float64, strict=False)
    number = pl.when(text.str.contains(r"[-(]")).then(-number).otherwise(number)
    # 1e5 and .5, but not 1.5 where the point groups thousands
    plain = pl.when(~text.str.contains(group, literal=True)).then(text.cast(pl.Float64, strict=False))
    return pl.when(text.str.contains(pattern(form))).then(number).otherwise(plain)


def mark_formatted(text: pl.Series) -> pl.Series:
    """Which values are numbers in one of the formats."""
    first, second = (text.str.contains(pattern(form)) for form in _MARKS)
    return first | second


def is_formatted(text: pl.Series) -> bool:
    """Whether every value is a number in one of the formats."""
    return any(text.str.contains(pattern(form)).all() for form in _MARKS)


def detect(text: pl.Series) -> NumberFormat | None:
    """The format in which every value of `text` (stripped, none missing) is written; None without a single one.

    Values of several units are no numbers, nor are identifiers that begin or end with a currency code.
    """
    if _identifiers(text):
        return None
    forms = [form for form in _MARKS if text.str.contains(pattern(form)).all()]
    if not forms or not _one_unit(text) or not text.str.contains(rf"[.,%]|{_CURRENCY}").any():
        return None
    if len(forms) == 1:
        return forms[0]
    # Both fit where no value has two kinds of marks or two groups: `1,459` may be 1459 or 1.459 in any number of rows.
    return None if text.str.contains(r"[.,]").any() else "1,234.5"


def _identifiers(text: pl.Series) -> bool:
    """Whether values with a currency code may be identifiers (CAD1001, SEK-1): no marks, distinct, of one width."""
    coded = text.filter(text.str.contains(_CODES))
    if coded.is_empty():
        return False
    if coded.str.contains(r"^\D*0\d").any():
        return True
    if coded.str.contains(rf"\d[.,{_EITHER}]\d").any():
        return False
    widths = coded.str.count_matches(r"\d")
    blank = coded.str.contains(rf"[{_SPACE}]").any()
    return not blank or bool(widths.n_unique() == 1 and widths[0] >= _MIN_WIDTH and coded.n_unique() == len(coded))


def _one_unit(text: pl.Series) -> bool:
    return text.str.extract(rf"({_CURRENCY}|%)").fill_null("").n_unique() == 1
