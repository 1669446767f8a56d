"""ISO 8601 texts as times: by the form that most rows of a column have, the others row by row."""

from __future__ import annotations

from typing import NamedTuple, get_args

import polars as pl

from cumulant.data.spec import DateFormat
from cumulant.data.text import date_text
from cumulant.data.text.zones import UTC_MICROS, to_utc

#: what no zone's offset has been beyond
_OFFSET = r"(?:Z|z|[+-](?:0[0-9]|1[0-5]):?[0-5][0-9])"
_ISO = rf"^(\d{{4}}-\d{{2}}-\d{{2}})(?:[T ](\d{{2}}:\d{{2}})(:\d{{2}}(?:\.\d{{1,9}})?)?)?\s*({_OFFSET})?$"
#: the basic format of ISO 8601, to the second
_ISO_BASIC, _EXTENDED = r"^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)", "${1}-${2}-${3}T${4}:${5}:${6}"
_WITH_OFFSET = (
    rf"^(?:\d{{4}}-\d{{2}}-\d{{2}}(?:[T ]\d{{2}}:\d{{2}}(?::\d{{2}}(?:\.\d{{1,9}})?)?)?"
    rf"|\d{{8}}T\d{{6}}(?:\.\d{{1,9}})?)\s*{_OFFSET}$"
)
_DAY, _CLOCK = "[12][0-9]{3}-[01][0-9]-[0-3][0-9]", "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
#: seconds without their fraction
_SECONDS = 19
_MICROS = 6
#: rows from which on it pays to look for their form
_MANY = 500
#: values by which a format is ruled out, drawn at random, with fewer dates among them than this share of what is asked
_SAMPLE, _OF_LEAST = 1_000, 0.5


class _Form(NamedTuple):
    """What rows of one form look like, and how their first signs, `width` of them, are read."""

    pattern: str
    width: int
    format: str


_FORMS = (
    *(
        form
        for sign in ("T", " ")
        for form in (
            _Form(
                rf"^{_DAY}{sign}{_CLOCK}:[0-5][0-9](?:\.[0-9]{{1,9}})?{_OFFSET}?$", _SECONDS, f"%Y-%m-%d{sign}%H:%M:%S"
            ),
            _Form(rf"^{_DAY}{sign}{_CLOCK}{_OFFSET}?$", 16, f"%Y-%m-%d{sign}%H:%M"),
        )
    ),
    _Form(rf"^{_DAY}{_OFFSET}?$", 10, "%Y-%m-%d"),
)


def moments(text: pl.Expr, zone: str | None, written: DateFormat | None) -> pl.Expr:
    """`text`, stripped, as UTC microseconds; null where it is no time.

    Texts without an offset are in `zone` (None: UTC), and may be `written` otherwise than in ISO 8601.
    """

    def read(series: pl.Series) -> pl.Series:
        local, minutes = pl.col("local"), pl.col("minutes")
        shifted = local.dt.replace_time_zone("UTC") - pl.duration(minutes=minutes)
        naive = local if written is None else pl.coalesce(local, date_text.read(pl.col("text"), written))
        placed = pl.when(minutes.is_null()).then(naive)
        return _parts(series).select(pl.coalesce(shifted, to_utc(placed, zone or "UTC"))).to_series()

    return text.map_batches(read, return_dtype=UTC_MICROS, is_elementwise=True)


def days(text: pl.Expr) -> pl.Expr:
    """The local day of `text` without blanks around it; null where it is no ISO 8601."""
    return text.map_batches(
        lambda series: _parts(series)["local"].dt.date(), return_dtype=pl.Date(), is_elementwise=True
    )


def has_offset(text: pl.Expr) -> pl.Expr:
    """Whether `text` without blanks around it looks like ISO 8601 with an offset."""
    return text.str.contains(_WITH_OFFSET)


class MostlyDates(NamedTuple):
    """How a column of dates with a few other values is read. are_dates: [n]; form: None where it is ISO 8601."""

    are_dates: pl.Series
    form: DateFormat | None
    clock: bool


def mostly_dates(text: pl.Series, least: float) -> MostlyDates | None:
    """The one format in which at least that share of `text` (stripped, none missing) are dates; None without one."""
    sample = text.sample(_SAMPLE, seed=0) if text.len() > _SAMPLE else text
    forms: tuple[DateFormat | None, ...] = (None, *get_args(DateFormat))
    fitting: list[MostlyDates] = []
    for form in forms:
        if _are_dates(sample, form).sum() < _OF_LEAST * least * sample.len():
            continue  # each format costs about a second for a million free texts
        are_dates = _are_dates(text, form)
        if text.len() and are_dates.sum() >= least * text.len():
            fitting.append(MostlyDates(are_dates, form, clock=date_text.has_clock(text.filter(are_dates))))
    iso = next((each for each in fitting if each.form is None), None)
    if iso is not None:
        return iso
    # those that are dates must be so by the stricter rules for a column of dates alone
    clear = [each for each in fitting if date_text.detect(text.filter(each.are_dates)) == each.form]
    return clear[0] if len(fitting) == len(clear) == 1 else None


def _are_dates(text: pl.Series, form: DateFormat | None) -> pl.Series:
    return text.to_frame("text").select(moments(pl.col("text"), "UTC", form).is_not_null()).to_series()


def _parts(text: pl.Series) -> pl.DataFrame:
    """`text`, its `local` time (a day alone is its begin) and the `minutes` of its offset; null where it has none."""
    if text.len() < _MANY:
        return _any_form(text)
    first = text.drop_nulls().head(1)
    form = next((form for form in _FORMS if first.str.contains(form.pattern).any()), None)
    if form is None:
        return _any_form(text)
    fits = text.str.contains(form.pattern)
    if fits.all():
        return _of_form(text, form)
    other = ~fits.fill_null(value=False)
    order = pl.concat([(~other).arg_true(), other.arg_true()]).arg_sort()
    return pl.concat([_of_form(text.filter(~other), form), _any_form(text.filter(other))])[order]


def _of_form(text: pl.Series, form: _Form) -> pl.DataFrame:
    local = text.str.slice(0, form.width).str.to_datetime(form.format, time_unit="us", strict=False)
    rest = text.str.slice(form.width)
    if form.width == _SECONDS and rest.str.starts_with(".").any():
        digits = rest.str.extract(r"^\.([0-9]+)")
        micros = digits.str.slice(0, _MICROS).str.pad_end(_MICROS, "0").cast(pl.Int64).fill_null(0)
        local = local + micros.cast(pl.Duration("us"))
        rest = rest.str.replace(r"^\.[0-9]+", "")
    offsets = rest.unique()  # of which there are few
    minutes = offsets.to_frame("offset").select(_minutes(pl.when(pl.col("offset") != "").then("offset"))).to_series()
    return pl.DataFrame(
        {"text": text, "local": local, "minutes": rest.replace_strict(offsets, minutes, return_dtype=pl.Int64)}
    )


def _any_form(text: pl.Series) -> pl.DataFrame:
    frame = text.alias("text").to_frame()
    parts = pl.col("text").str.replace(_ISO_BASIC, _EXTENDED).str.extract_groups(_ISO)
    frame = frame.with_columns(parts.alias("parts"))
    day, clock, seconds, offset = (pl.col("parts").struct.field(str(index)) for index in (1, 2, 3, 4))
    whole = day + " " + clock.fill_null("00:00") + seconds.fill_null(":00")
    local = whole.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    return frame.select("text", local.alias("local"), _minutes(offset).alias("minutes"))


def _minutes(offset: pl.Expr) -> pl.Expr:
    digits = offset.str.replace_all("[:Zz]", "").str.pad_end(5, "0")
    hours, minutes = (digits.str.slice(place, 2).cast(pl.Int64, strict=False) for place in (1, 3))
    sign = pl.when(digits.str.starts_with("-")).then(-1).otherwise(1)
    return (hours * 60 + minutes) * sign
