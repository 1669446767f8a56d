"""Files and names that no project, or an odd one, can be made of."""

from __future__ import annotations

import gzip

import pytest
from wrong_input_support import FRAME, HEADER, PARQUET, changed, jsonl, orders, parquet, refused, table

pytestmark = pytest.mark.slow


LEFT_OUT = [
    ("id,late\na,1\nb,0\n", "no column is left", "identifies the row"),
    ("late\n0\n1\n0\n", "no column is left", "no column beside the target"),
]


UNREADABLE = {
    "an empty file": ("rows.csv", b"", "is empty (0 bytes)"),
    "blank lines only": ("rows.csv", b"\n\n\n", "holds no table"),
    "a header only": ("rows.csv", table([]).encode(), "there are no rows"),
    "a cut CSV": ("rows.csv", table().encode()[:-5], "is cut off: its last line has 2 of 4 fields"),
    "rows that are all too long": (
        "rows.csv",
        b"a,b,late\n1,2,3,4\n3,4,5,6\n",
        "none of its 2 rows has all the 3 fields",
    ),
    "a cut in a quoted field": ("rows.csv", table().encode() + b'id9,"1', "in the row that begins in line 302"),
    "rows that are all too short": ("rows.csv", b"a,b,late\n1,2\n3,4\n", "none of its 2 rows has all the 3 fields"),
    "an open quote": ("rows.csv", table().encode() + b'id9,"1,x,0\n', "quoted field that does not end"),
    "a cut gzip": ("rows.csv.gz", gzip.compress(table().encode())[:400], "damaged or cut off (gzip)"),
    "no gzip at all": ("rows.csv.gz", b"\x1f\x8b garbage", "damaged or cut off (gzip)"),
    "an empty Parquet": (PARQUET, b"", "is empty (0 bytes)"),
    "a cut Parquet": (PARQUET, parquet(FRAME)[:900], "not a whole Parquet file"),
    "a Parquet without rows": (PARQUET, parquet(FRAME.clear()), "there are no rows"),
    "cut JSON lines": ("rows.jsonl", jsonl(FRAME)[:-20], "cut off: its last line is not a whole JSON object"),
    "one JSON array": ("rows.json", b'[{"a": 1}]', "one JSON array"),
    "a cut workbook": ("rows.xlsx", b"PK\x03\x04", "not a whole Excel workbook"),
    "a spreadsheet": ("rows.ods", b"PK\x03\x04", "save it as CSV or Parquet"),
    "two columns of one name": ("rows.csv", b"a,a,late\n1,2,0\n", "two columns named a"),
    "a name that is kept": ("rows.csv", b"__row,a,late\n1,2,0\n", "another name in the data"),
    "a constant target": ("rows.csv", table(changed(3, lambda *_: 1)).encode(), "the same value in every row"),
    "a target of nulls": ("rows.csv", table(changed(3, lambda *_: "")).encode(), "is empty in all 300 rows"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_no_project_can_be_made_of(cumulant, here, case):
    name, content, said = UNREADABLE[case]
    (here / name).write_bytes(content)
    refused(cumulant("new", "shop", "--from", name, "--target", "late"), 2, said)
    assert [path.name for path in here.iterdir()] == [name]
    assert (here / name).read_bytes() == content


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "ordrs.csv", "--target", "late"), ("there is no file ordrs.csv", 'did you mean "orders.csv"?')),
        (("--from", "none/*.csv", "--target", "late"), ("no file matches",)),
        (("--from", "orders.csv", "--target", "lat"), ('no column "lat"', 'did you mean "late"?')),
        (("--from", "orders.csv", "--target", "LATE"), ('did you mean "late"?',)),
        (("--from", "orders.csv", "--target", "late > 0 >"), ("invalid syntax",)),
        (("--from", "orders.csv", "--target", "id"), ("300 different values, too many for classes",)),
        (
            ("--from", "orders.csv", "--target", "late", "--time", "when"),
            ('"when", which --time names', "id, amount, kind, late"),
        ),
        (
            ("--from", "orders.csv", "--target", "late", "--time", "kind"),
            ("300 of 300 values cannot be read", "ISO 8601"),
        ),
        (("--from", "orders.csv", "--target", "late", "--key", "kind"), ("does not identify a row", "--key A --key B")),
        (("--from", "orders.csv"), ("no column to predict was named", "--target")),
        (("--target", "late"), ("add --from FILE",)),
        (("--template", "flihgts"), ('did you mean "flights"?',)),
        (("--from", "gopher://x/y.csv", "--target", "late"), ("no driver for", "s3://")),
    ],
)
def test_what_new_is_asked_for_by_mistake(cumulant, here, words, said):
    (here / "orders.csv").write_text(table())
    refused(cumulant("new", "shop", *words), 2, *said)
    assert [path.name for path in here.iterdir()] == ["orders.csv"]


@pytest.mark.parametrize("name", ["../shop", "a/b", "", ".", "my shop", "größe", "a" * 80])
def test_names_that_no_project_can_have(cumulant, here, name):
    (here / "orders.csv").write_text(table())
    refused(cumulant("new", name, "--from", "orders.csv", "--target", "late"), 2, "cannot name a project")
    assert [path.name for path in here.iterdir()] == ["orders.csv"]


def test_a_folder_that_is_there_is_left_alone(cumulant, here):
    (here / "orders.csv").write_text(table())
    (here / "shop").mkdir()
    (here / "shop" / "mine.txt").write_text("precious")
    refused(
        cumulant("new", "shop", "--from", "orders.csv", "--target", "late"),
        2,
        "not an empty folder",
        "nothing was written",
    )
    assert [path.name for path in (here / "shop").iterdir()] == ["mine.txt"]


READABLE = {
    "Windows line ends": (table(end="\r\n").encode(), "late", ""),
    "a byte order mark": (b"\xef\xbb\xbf" + table().encode(), "late", ""),
    "UTF-16": (table().encode("utf-16"), "late", "read as utf-16"),
    "Latin-1": (table(changed(2, lambda n, v: "café" if n % 3 else v)).encode("latin-1"), "late", "read as latin-1"),
    "semicolons": (table(separator=";").encode(), "late", 'separated by ";"'),
    "semicolons and decimal commas": (
        table(changed(1, lambda _, v: str(v).replace(".", ",")), separator=";").encode(),
        "late",
        "numbers, written 1.234,5",
    ),
    "tabs": (table(separator="\t").encode(), "late", r'separated by "\t"'),
    "thousands": (
        table(changed(1, lambda _, v: f'"{v * 1000:,.2f}"')).encode(),
        "late",
        "amount is text that is read as numbers, written 1,234.5",
    ),
    "day/month/year": (
        table(changed(1, lambda n, _: f"{1 + n % 28:02d}/01/2024")).encode(),
        "late",
        "read as dates, written 31/12/2024",
    ),
    "yes and no": (table(changed(3, lambda _, v: "yes" if v else "no")).encode(), "late", "two values"),
    "True and False": (table(changed(3, lambda _, v: bool(v))).encode(), "late", "two values"),
    "blanks around values": (
        table(changed(2, lambda n, v: f" {v}" if n % 9 else " ?")).encode(),
        "late",
        '"?" is read as missing',
    ),
    "numbers with blanks": (
        table(changed(1, lambda n, v: v if n % 9 else " ")).encode(),
        "late",
        "amount is read as a number",
    ),
    "ids as text": (table(changed(0, lambda n, _: f"{n:05d}")).encode(), "late", "id identifies a row"),
    "an index without a name": (
        table(changed(0, lambda n, _: n), header=("", *HEADER[1:])).encode(),
        "late",
        "not used by the model",
    ),
    "odd names": (
        table(header=("the id", '"a ""b"""', "<i>k</i>.x", "is late?")).encode(),
        "is late?",
        "is late? has two values",
    ),
    "names with signs": (
        table(header=("id", "_a", "k-k", "income-per-year")).encode(),
        "income-per-year",
        "two values",
    ),
    "blanks in a header": (table(header=("id", " amount ", "kind", " late")).encode(), " late", "two values"),
    "a column of nulls": (table(changed(2, lambda *_: "")).encode(), "late", "kind (empty in every row)"),
    "a column that tells the target": (
        table(changed(2, lambda n, _: orders()[n][3])).encode(),
        "late",
        "kind (alone determines the target",
    ),
    "one that tells it otherwise": (
        table(changed(2, lambda n, _: "NY"[orders()[n][3]])).encode(),
        "late",
        "kind (alone determines",
    ),
    "one that is the target twice": (
        table(changed(3, lambda n, _: 2 * orders()[n][1] + 1)).encode(),
        "late",
        "amount (alone determines",
    ),
    "a row with too many fields": (table().encode() + b"id9,1,x,0,7\n", "late", "fewer or more fields than the header"),
    "a row with too few fields": (
        table().replace("\n", "\nid9,1\n", 2).encode(),
        "late",
        "fewer or more fields than the header",
    ),
    "blank lines": (
        table().replace("\n", "\n\n", 9).encode() + b"\n\n",
        "late",
        "300 rows and 4 columns were looked at",
    ),
    "a nearly unique id": (
        table([*orders(), orders()[0]]).encode(),
        "late",
        "id (nearly identifies the row: 1 of 301 rows repeat a value; --key id",
    ),
    "several wrong numbers": (
        table(changed(1, lambda n, v: "lots" if n < 7 else v)).encode(),
        "late",
        "amount holds numbers, but 7 of 300 values are none (the first in row 1); it stays text",
    ),
    "a few repeated keys": (table([*orders(), orders()[0]]).encode(), "late", "no column identifies a row"),
}


@pytest.mark.parametrize("case", READABLE)
def test_tables_as_people_have_them_become_projects(cumulant, here, case):
    content, target, said = READABLE[case]
    (here / "my rows.csv").write_bytes(content)
    made = cumulant("new", "shop", "--from", "my rows.csv", "--target", target)
    assert made.code == 0, made.err
    assert said in made.out
    plan = cumulant("plan", "--project", "shop", "--json")
    assert plan.code == 0, plan.err
    assert plan.document["sources"][0]["rows"] in (300, 301)
    assert plan.document["features"]["features"]


@pytest.mark.parametrize(("content", "said", "why"), LEFT_OUT)
def test_a_table_without_anything_to_learn_from(cumulant, here, content, said, why):
    (here / "rows.csv").write_text(content)
    refused(cumulant("new", "shop", "--from", "rows.csv", "--target", "late"), 2, said, why)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--json",), "write it after a command: cumulant ps --json"),
        (("up", "--port", "99"), "write the address: --http 127.0.0.1:PORT"),
        (("up", "--projct", "x"), 'did you mean "--project"?'),
    ],
)
def test_an_option_in_the_wrong_place_is_named_where_it_belongs(cumulant, here, words, said):
    ended = cumulant(*words)
    assert ended.code == 2
    assert said in (ended.out + ended.err).replace('\\"', '"')


def test_the_shares_of_versions_are_said_in_one_line():
    from cumulant.cli.serving.stack_table import shares_text

    assert shares_text({"3": 0.875, "4": 0.125}) == "version 3 answers 87.5%, version 4 answers 12.5% of the requests"
