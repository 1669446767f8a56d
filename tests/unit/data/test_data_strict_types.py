"""Values that look like a type and are none, and values that are missing though they are not null."""

from __future__ import annotations

import pytest

GOOD = "".join(f"{n},2024-01-{n % 28 + 1:02}\n" for n in range(200))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2024-01-31", True),
        (" 2024-01-31 ", True),
        ("2024-01-31T00:00:00Z", True),
        ("2024-01-31 23:59:59.5", True),
        ("2024-01-31garbage", False),
        ("2024-01-31 garbage", False),
        ("2024-01-311", False),
        ("2024-02-30", False),
        ("2024-01-31T25:00", False),
        ("2024-01-31T00:00:00+99:00", False),
    ],
)
def test_what_is_a_date(place, text, read):
    place.write("trips.csv", f"id,when\n{GOOD}999,{text}\n")
    found = place.ingest(rules={"when": {"type": "date"}})
    assert found.rows_quarantined == (0 if read else 1)
    if read:
        assert str(place.rows(found, "when")[-1][0]) == "2024-01-31"
    else:
        assert place.quarantine(found).select("__rule", "when").rows() == [("when:type", text)]


@pytest.mark.parametrize(
    ("offset", "read"),
    [
        ("Z", True),
        ("+14:00", True),
        ("-1200", True),
        ("+15:59", True),
        ("+16:00", False),
        ("+99:00", False),
        ("+05:60", False),
        ("-99:99", False),
    ],
)
def test_offsets_of_times(place, offset, read):
    rows = "".join(f"{n},2024-01-02T03:04:05Z\n" for n in range(200))
    place.write("trips.csv", f"id,at\n{rows}999,2024-01-02T03:04:05{offset}\n")
    assert place.ingest(event_time="at").rows_quarantined == (0 if read else 1)


@pytest.mark.parametrize("other", ["7", "x"])
@pytest.mark.parametrize("declared", ["int", "float"])
@pytest.mark.parametrize("mark", ["NaN", "nan", "-NaN"])
def test_nan_in_a_column_of_numbers_is_missing_whatever_the_other_rows(place, other, declared, mark):
    place.write("trips.csv", f"id,x\n1,5\n2,{mark}\n3,{other}\n")
    found = place.ingest(rules={"x": {"type": declared}}, quarantine=1)
    assert place.rows(found, "x")[:2] == [(5,), (None,)]
    assert found.rows_quarantined == (other == "x")


def test_nan_in_a_column_of_text_is_text_in_each_file(place):
    place.write("trips/a.csv", "id,x\n1,NaN\n2,NaN\n")
    place.write("trips/b.csv", "id,x\n1,NaN\n2,abc\n")
    place.write("trips/c.csv", "id,x\n1,NaN\n2,1.5\n")
    found = place.ingest(path="trips")
    assert [value for (value,) in place.rows(found, "x")] == ["NaN", "NaN", "NaN", "abc", "NaN", "1.5"]


def test_infinite_numbers_and_blank_text_are_no_known_values(place):
    rows = "".join(f"{n},a,{n}.5\n" for n in range(400))
    place.write("trips.csv", f'id,name,x\n{rows}401,"  ",1\n402,"",1\n403,b,inf\n404,c,-inf\n')
    limits = {"name": {"nulls": 0}, "x": {"nulls": 0, "type": "float"}}
    found = place.ingest(key="id", rules=limits)
    assert place.quarantine(found).select("__rule", "id").rows() == [
        ("name:nulls", 401),
        ("name:nulls", 402),
        ("x:nulls", 403),
        ("x:nulls", 404),
    ]
    assert place.ingest(key="id", rules={"x": {"type": "float"}}).rows_quarantined == 0


def test_a_blank_key_is_none(place):
    rows = "".join(f"k{n},1\n" for n in range(200))
    place.write("trips.csv", f'id,x\n{rows}"   ",1\n')
    assert place.quarantine(place.ingest(key="id"))["__rule"].to_list() == ["id:nulls"]
