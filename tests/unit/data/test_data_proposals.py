"""`infer`: what a look at data proposes, and that the proposal takes the data it was made from."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest

from cumulant.core.errors import DataError
from cumulant.data.files.reading import read
from cumulant.data.proposal.proposal import infer
from cumulant.data.proposal.written_spec import to_declaration
from cumulant.data.spec import EventTime, SourceSpec

START = datetime(2024, 1, 1, tzinfo=UTC)


def shop(rows: int = 400) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "order_id": [f"A-{n:05}" for n in range(rows)],
            "createdAt": [(START + timedelta(minutes=7 * n)).isoformat() for n in range(rows)],
            "email": [f"p{n}@example.com" for n in range(rows)],
            "amount": [n * 1.5 for n in range(rows)],
            "temperature": [50.0 + n % 30 for n in range(rows)],
            "share": [(n % 10) / 10 for n in range(rows)],
            "city": ["ABC"[n % 3] for n in range(rows)],
            "plate": [f"{chr(65 + n % 26)}{chr(65 + n % 7)}{n % 500:03}" for n in range(rows)],
            "debt": [str(n) if n % 9 else " " for n in range(rows)],
            "age": [str(20 + n % 50) if n % 8 else "?" for n in range(rows)],
            "zip": [f"{n % 100:05}" for n in range(rows)],
            "paid": [n % 2 for n in range(rows)],
        }
    )


def test_every_part_of_a_proposal():
    found = infer(shop(), path="orders.csv", target="paid")
    spec = found.spec
    assert spec.keys == ("order_id",)
    assert spec.time == EventTime(column="createdAt")
    assert spec.personal == ["email"]
    assert spec.missing == ["?"]
    assert to_declaration(spec)["rules"] == {
        "debt": {"type": "int", "min": 0},
        "age": {"type": "int"},
        "amount": {"min": 0},
        "share": {"min": 0, "max": 1},
        "city": {"in": ["A", "B", "C"]},
        "plate": {"pattern": "^[A-Z]{2}[0-9]{3}$"},
        "zip": {"type": "str", "pattern": "^[0-9]{5}$"},
    }
    for subject in ("createdAt", "order_id", "email", '"?"', "debt", "amount", "city", "plate"):
        assert any(subject in note for note in found.notes), subject


PHONES = [
    "+49 171 1234567",
    "(212) 555-0123",
    "212-555-0123",
    "0171 1234567",
    "+491711234567",
    "030/1234567",
    "06 12 34 56 78",
]


@pytest.mark.parametrize("phone", PHONES)
def test_text_that_holds_phone_numbers_or_addresses_is_personal_whatever_its_name(phone):
    rows = 400
    frame = pl.DataFrame(
        {
            "amount": [n * 1.5 for n in range(rows)],
            "contact": [phone[:-2] + f"{n % 90 + 10}" for n in range(rows)],
            "remark": [f"call {phone} later, {n}" if n % 40 == 0 else f"order {n} is fine" for n in range(rows)],
            "agent": [f"agent{n % 5}@shop.example.com" for n in range(rows)],
            "paid": [n % 2 for n in range(rows)],
        }
    )
    found = infer(frame, target="paid")
    assert found.spec.personal == ["contact", "remark", "agent"]
    text = "personal by its values, and so shown as hashes only: remark holds phone numbers in 10 of 400 values"
    assert text in found.notes


@pytest.mark.parametrize(
    ("values", "personal"),
    [
        (["write to a@b.com"] * 2 + ["shoes"] * 298, False),
        (["write to a@b.com"] * 3 + ["shoes"] * 397, True),
        (["write to a@b.com"] + ["shoes", None] * 40, True),
        (["jürgen@müller.de"] * 5 + ["none"] * 195, True),
        ([f"用户{n}@例子.中国" for n in range(200)], True),
        ([f"{n % 900 + 100}-{n * 7 % 900 + 100}-{n * 13 % 9000 + 1000}" for n in range(200)], False),
        ([f"{n % 800 + 200}-{n * 7 % 800 + 200}-{n * 13 % 9000 + 1000}" for n in range(200)], True),
        ([f"0{n % 900 + 100} {n * 7 % 9000 + 1000} {n * 13 % 9000 + 1000}" for n in range(200)], False),
        ([f"{n % 28 + 1:02}-{n % 12 + 1:02}-{n % 9 + 2015} 10 30" for n in range(200)], False),
        (["+49 1711 2345 6789"] * 200, True),
        ([f"({n % 90 + 10}) {n * 7919 % 900000 + 100000}" for n in range(200)], False),
    ],
)
def test_which_texts_are_contact_details(values, personal):
    frame = pl.DataFrame({"text": values, "paid": [n % 2 for n in range(len(values))]})
    assert (infer(frame, target="paid").spec.personal == ["text"]) == personal


def test_one_address_is_a_note_and_hides_no_feature():
    frame = pl.DataFrame({"text": ["write to a@b.com", *["shoes"] * 199], "paid": [n % 2 for n in range(200)]})
    found = infer(frame, target="paid")
    assert found.spec.personal == []
    assert any("text holds e-mail addresses in 1 of 200 values" in note for note in found.notes)


def test_codes_dates_and_amounts_are_no_contact_details():
    rows = 400
    start = datetime(2026, 1, 1, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "order": [f"2026-{n:04}-{n % 7:03}" for n in range(rows)],
            "at": [f"{start + timedelta(minutes=n):%Y-%m-%d %H:%M:%S+0200}" for n in range(rows)],
            "day": [f"{start + timedelta(days=n):%d.%m.%Y}" for n in range(rows)],
            "ip": [f"192.168.{n % 256}.{n % 199}" for n in range(rows)],
            "price": [f"$1,{n:03}.50" for n in range(rows)],
            "account": [f"{4_000_123_400_000_000 + n}" for n in range(rows)],
            "sku": [f"AB-{n:03}-{n % 9}-00{n % 5}" for n in range(rows)],
            "handle": [f"@user{n}" for n in range(rows)],
            "paid": [n % 2 for n in range(rows)],
        }
    )
    assert infer(frame, target="paid").spec.personal == ["ip"]  # by its name


def test_the_proposal_takes_the_data_it_was_made_from(place):
    path = place.write("orders.csv", shop().write_csv())
    raw = read(path, "orders.csv", SourceSpec())
    found = place.ingest("orders", **to_declaration(infer(raw, path="orders.csv").spec))
    assert found.rows_passed == 400
    assert found.rows_quarantined == 0


def test_what_the_user_said_goes_first():
    frame = shop().with_columns(shipped=pl.lit("2024-05-01"))
    found = infer(frame, time="shipped", key=["email", "createdAt"], rules=False)
    assert found.spec.keys == ("email", "createdAt")
    assert found.spec.time == EventTime(column="shipped", zone="UTC")
    assert set(found.spec.rules) == {"debt", "age", "zip"}
    with pytest.raises(DataError, match='no column "shiped"') as caught:
        infer(frame, time="shiped")
    assert "shipped" in caught.value.hint


def test_a_place_and_a_time_as_key_and_no_time_at_all():
    base = pl.DataFrame({"station": ["A", "B"] * 50, "when": [START + timedelta(hours=n // 2) for n in range(100)]})
    assert infer(base).spec.keys == ("station", "when")
    found = infer(pl.DataFrame({"x": [0.5, 0.5]}))
    assert (found.spec.time, found.spec.keys) == (None, ())
    assert any("no order in time" in note for note in found.notes)
    assert any("too few" in note for note in found.notes)


def test_row_numbers_without_a_name_are_no_key():
    frame = pl.DataFrame({"": range(60), "code": [f"c{n}" for n in range(60)], "price": [n % 7 for n in range(60)]})
    assert infer(frame).spec.keys == ("code",)
    assert infer(frame.drop("code")).spec.keys == ()


def test_nested_columns_are_noted_and_empty_frames_refused():
    found = infer(pl.DataFrame({"a": [[1, 2]], "b": [1]}))
    assert any(note.startswith("a holds lists") for note in found.notes)
    with pytest.raises(DataError, match="no rows"):
        infer(pl.DataFrame({"a": []}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key", "time"),
    [
        ("tabular/adult.csv.gz", (), None),
        ("tabular/telco_churn.csv.gz", ("customerID",), None),
        ("tabular/german_credit.csv.gz", (), None),
        ("tabular/california_housing.parquet", (), None),
        ("tabular/feast_loan_table.parquet", ("loan_id",), "event_timestamp"),
        ("events/retentioneering_ecom.csv.gz", (), "timestamp"),
        ("drift/nycflights13_weather.parquet", ("origin", "time_hour"), "time_hour"),
        ("fraud/handbook_tx_2018-04_06.parquet", ("TRANSACTION_ID",), "TX_DATETIME"),
    ],
)
def test_published_data_comes_in_whole_under_its_proposal(place, published, name, key, time):
    path = published(name)
    raw = read(path, Path(name).name, SourceSpec())
    found = infer(raw, path=str(path)).spec
    assert found.keys == key
    assert (found.time.column if found.time else None) == time
    snapshot = place.ingest("source", **msgspec.to_builtins(found))
    assert (snapshot.rows_in, snapshot.rows_quarantined) == (raw.height, 0)


@pytest.mark.parametrize(
    ("name", "first", "unit"),
    [
        ("ts", 1_700_000_000, "seconds"),
        ("createdAt", 1_700_000_000_000, "milliseconds"),
        ("epoch", 946_684_800, "seconds"),
    ],
)
def test_whole_numbers_since_1970_under_the_name_of_a_time_are_times(name, first, unit):
    frame = pl.DataFrame({name: [first, first + 60, None, *[first + 120] * 60], "x": [0.5] * 63})
    assert infer(frame).spec.time == EventTime(column=name)
    assert f"{name} holds {unit} since 1970 (UTC) and is read as times" in infer(frame).notes
    assert infer(frame, target=name).spec.time is None


@pytest.mark.parametrize(("name", "first"), [("amount", 1_700_000_000), ("date", 20_240_101), ("ts", 2_051_222_400)])
def test_other_numbers_are_no_times(name, first):
    assert infer(pl.DataFrame({name: [first, first + 1]})).spec.time is None


def test_a_second_column_of_such_numbers_is_a_time_too():
    frame = pl.DataFrame({"ts": [1_700_000_000 + n for n in range(20)], "updated_ts": [1_700_000_000] * 20})
    spec = infer(frame, rules=False).spec
    assert spec.time == EventTime(column="ts")
    assert to_declaration(spec)["rules"] == {"updated_ts": {"type": "time"}}


def test_a_wrong_value_in_a_column_of_numbers_is_a_warning():
    frame = shop().with_columns(
        few=pl.Series(["x" if n == 6 else str(n) for n in range(400)]),
        many=pl.Series(["x" if n < 9 else str(n) for n in range(400)]),
        text=pl.Series(["x" if n < 90 else str(n) for n in range(400)]),
    )
    found = infer(frame, rules=False)
    assert found.spec.rules["few"].type == "float"
    assert "many" not in found.spec.rules
    assert "text" not in found.spec.rules
    few, many = (note for note in found.notes if note.startswith("warning: "))
    assert few.startswith(
        "warning: few holds numbers, but 1 of 400 values are none (the first in row 7); it is read as"
    )
    assert many.startswith("warning: many holds numbers, but 9 of 400 values are none (the first in row 1); it stays")


def test_wrong_values_in_a_column_of_dates_are_counted():
    """ISO 8601, with an offset too, and other formats; day and month in doubt stay text as without wrong values."""
    moments = [START + timedelta(hours=9 * n) for n in range(300)]

    def written(form: str, wrong: int = 1, text: str = "2026-13-45") -> pl.Series:
        return pl.Series([text if 5 <= n < 5 + wrong else f"{at:{form}}" for n, at in enumerate(moments)])

    frame = pl.DataFrame(
        {
            "seen_at": written("%Y-%m-%dT%H:%M:%SZ", text="unclear"),
            "paid_at": written("%Y-%m-%d %H:%M"),
            "due": written("%d/%m/%Y", text="31/02/2026"),
            "many": written("%d.%m.%Y", wrong=9),
            "doubt": pl.Series(["soon", *[f"{1 + n % 9}/{1 + n % 7}/2024" for n in range(299)]]),
        }
    )
    proposed = infer(frame, time="seen_at", rules=False)
    rules = {name: (rule.type, rule.date_format) for name, rule in proposed.spec.rules.items()}
    assert rules == {"paid_at": ("time", None), "due": ("date", "31/12/2024")}
    assert proposed.spec.time == EventTime(column="seen_at")
    seen, _, due, many = [note for note in proposed.notes if "not parse" in note]
    rest = "but 1 of 300 values does not parse as one (the first in row 6); it is read as a"
    assert seen == f"warning: seen_at holds times, {rest} time, and rows with such a value go to quarantine"
    assert due.startswith(f"warning: due holds dates, written 31/12/2024, {rest} date")
    assert "many holds dates, written 31/12/2024, but 9 of 300 values do not parse as one" in many
    assert "more than the 1% of the rows that may go to quarantine; it stays text" in many


def orders(rows: int = 300) -> pl.DataFrame:
    """Orders of two months: each is shipped within 3 days and decided within 20; dates as a shop writes them."""
    at = [START + timedelta(minutes=300 * (n // 2)) for n in range(rows)]
    times = {
        "ordered_at": at,
        "shipped_at": [time + timedelta(hours=1 + n % 70) for n, time in enumerate(at)],
        "decided_at": [time + timedelta(days=4, minutes=37 * n % 23_000) for n, time in enumerate(at)],
    }
    return pl.DataFrame({name: [f"{time:%d/%m/%Y %H:%M}" for time in values] for name, values in times.items()})


def test_of_several_times_of_a_row_the_event_is_the_earliest():
    found = infer(orders().with_columns(returned=pl.lit(0)), target="returned")
    assert found.spec.time is not None
    assert found.spec.time.column == "ordered_at"
    assert found.later == ("decided_at", "shipped_at")
    [note] = [note for note in found.notes if "the event's time is ordered_at" in note]
    assert note.startswith("warning: ")
    assert "decided_at" in note
    assert infer(orders(), time="shipped_at").later == ("decided_at",)


def test_a_time_of_something_else_than_the_row_is_not_its_event():
    frame = orders().select(
        "ordered_at",
        born_date=pl.Series([date(1950 + n % 50, 1, 1) for n in range(300)]),
        signup_date=pl.Series([date(2010 + n % 10, 1 + n % 12, 1) for n in range(300)]),
        birth_date=pl.Series([date(1950, 1, 1) + timedelta(days=40 * n) for n in range(300)]),
        ordered_date=pl.Series([(START + timedelta(minutes=300 * (n // 2))).date() for n in range(300)]),
    )
    time = infer(frame).spec.time
    assert time is not None
    assert time.column == "ordered_at"
