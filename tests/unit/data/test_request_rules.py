"""Which rules of a source travel with a model, and how patterns are read in Python."""

from __future__ import annotations

import re

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cumulant.core.errors import DataError
from cumulant.core.plan import Field
from cumulant.core.servable import FieldRule
from cumulant.data.rules.request_rules import request_rules, to_python_pattern, unchecked_rules
from cumulant.data.spec import RuleSpec, SourceSpec
from cumulant.project.data_section import source_policy

PORTABLE = [r"^N\d+$", r"[A-Z]{2}", r"^[^@]+@x$", r"a\$b", r"[$]a$", r"^\w+-\d+$", r"^(AA|UA)$", r"a?b?c?", r"^.$"]
PORTABLE += [r"^\s$", r"^\S+$", r"\bN", r"^[\w.]+$", r"^[^\d]$", r"^\x41$", r"^\u0041?$", r"\AN", r"^[+-]?\d{2,3}?$"]
#: what a pattern is made of, by which the two languages differ
PIECES = [
    *"aA1-^$.|()[]{}*+?<>&~,: ",
    r"\d",
    r"\W",
    r"\s",
    r"\b",
    r"\B",
    r"\<",
    r"\>",
    r"\]",
    r"\[",
    r"\-",
    r"\\",
    r"\.",
    r"\A",
    r"\z",
    r"\n",
    r"\x41",
    r"\x{41}",
    r"\u0041",
    r"\u{41}",
    r"\pL",
    r"\p{L}",
    r"\b{start}",
    "[[:alpha:]]",
    "[^a]",
    "[a-c]",
    "[]a]",
    "[a[b]]",
    "&&",
    "--",
    "~~",
    "||",
    "{2}",
    "{1,}",
    "{,2}",
    "{ 2 }",
    "a+",
    "(a|",
    "(?i)",
    "(?:",
]
TEXTS = st.text(st.sampled_from("aAbcNU12-@x$\n. ]²é\u0301\x1c\x85\u0663"), max_size=6)


def test_what_can_be_decided_on_one_value():
    spec = SourceSpec(
        rules={
            "amount": RuleSpec(min=0, max="9.5", nulls="0%"),
            "kind": RuleSpec(in_=["a", 1], pattern="^[a-z1]$", nulls=0.5),
            "at": RuleSpec(min="2024-01-01"),
            "day": RuleSpec(max="2024-02-03"),
            "flag": RuleSpec(in_=[1]),
            "card": RuleSpec(in_=["4556"], pattern=r"^\d$", unique=True),
            "name": RuleSpec(unique=True, description="a name"),
            "late": RuleSpec(min=0),
            "price": RuleSpec(number_format="1.234,5"),
        }
    )
    fields = [
        Field("amount", "float"),
        Field("kind", "str"),
        Field("at", "time"),
        Field("day", "date"),
        Field("flag", "bool"),
        Field("card", "str", personal=True),
        Field("name", "str"),
        Field("other", "int"),
        Field("price", "float"),
    ]
    assert request_rules(source_policy(spec), fields, source="rows") == {
        "amount": FieldRule(required=True, min=0, max=9.5),
        "kind": FieldRule(members=("a", "1"), pattern=r"^[a-z1]\Z", declared_pattern="^[a-z1]$"),
        "at": FieldRule(min="2024-01-01T00:00:00+00:00"),
        "day": FieldRule(max="2024-02-03"),
        "flag": FieldRule(members=(True,)),
        "card": FieldRule(pattern=r"(?a)^\d\Z", declared_pattern=r"^\d$"),
        "price": FieldRule(number_format="1.234,5"),
    }
    assert unchecked_rules(source_policy(spec), fields) == {"card": ("in",)}
    odd = SourceSpec(
        rules={"kind": RuleSpec(pattern=r"^\p{L}$"), "amount": RuleSpec(pattern="^1"), "other": RuleSpec()}
    )
    assert unchecked_rules(source_policy(odd), fields) == {"amount": ("pattern",), "kind": ("pattern",)}


@pytest.mark.parametrize(
    ("rule", "dtype"),
    [
        (RuleSpec(min="abc"), "float"),
        (RuleSpec(max="2024-13-01"), "time"),
        (RuleSpec(min=5), "date"),
        (RuleSpec(max=5), "str"),
        (RuleSpec(in_=["x"]), "int"),
    ],
)
def test_a_rule_that_no_longer_fits_the_columns_type_is_named_with_it(rule, dtype):
    with pytest.raises(DataError, match=r'source rows: .* column "seats", which is of type') as caught:
        request_rules(source_policy(SourceSpec(rules={"seats": rule})), [Field("seats", dtype)], source="rows")
    assert caught.value.subject == "seats"


@pytest.mark.parametrize("pattern", PORTABLE)
@given(text=TEXTS)
def test_a_portable_pattern_says_the_same_as_the_check_of_the_data(pattern, text):
    assert says_the_same(pattern, [text])


@settings(max_examples=250, deadline=None)
@given(
    pattern=st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join), texts=st.lists(TEXTS, min_size=4)
)
def test_any_pattern_that_is_called_portable_says_the_same(pattern, texts):
    assume(to_python_pattern(pattern) is not None)
    try:
        assert says_the_same(pattern, texts)
    except pl.exceptions.ComputeError:
        assume(False)  # which the check of the data refuses


def says_the_same(pattern: str, texts: list[str]) -> bool:
    """Whether Python finds in each text what Polars does; a pattern for ASCII texts is compared on those only."""
    python = re.compile(to_python_pattern(pattern))
    compared = [text for text in texts if text.isascii() or not python.flags & re.ASCII]
    rust = pl.Series(compared, dtype=pl.String).str.contains(pattern).to_list()
    return [python.search(text) is not None for text in compared] == rust


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$",
        r"(a|aa)*$",
        r"a*a*a*a*b",
        r"(?i)a",
        r"[[:alpha:]]",
        r"\p{L}",
        r"a\z",
        r"(?U)a+",
        r"[a&&b]",
        r"(a{1,}){2,}",
        r"x+y+z+",
        r"^x+y+z+",
        r"x+y+",
        r"^a|b+c+",
        r"a?a?a?a?aaaa",
        r"^a{1,9}b{1,9}c{1,9}",
        "^" + "(a|aa)" * 4 + "$",
        r"^[^[:space:]]+$",
        r"^[_[:alnum:]]+$",
        r"^[a[bc]]$",
        r"^[a-z--b]$",
        r"^[a~~b]$",
        r"^[]-a]$",
        r"^\d{3}+$",
        r"^\d++\d$",
        r"^a?+a$",
        r"^a{2}{3}$",
        r"\<a",
        r"a\>",
        r"^\b{start}a",
        r"^\B$",
        r"^\x{41}$",
        r"^\u{41}$",
        r"^a{ 2 }$",
    ],
)
def test_what_reads_otherwise_or_takes_long_is_left_out(pattern):
    assert to_python_pattern(pattern) is None
