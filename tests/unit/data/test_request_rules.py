"""Which rules of a source travel with a model, and how patterns are read in Python."""

from __future__ import annotations

import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.plan import Field
from cumulant.core.servable import FieldRule
from cumulant.data import RuleSpec, SourceSpec, request_rules
from cumulant.data.row_rules import portable

PORTABLE = [r"^N\d+$", r"[A-Z]{2}", r"^[^@]+@x$", r"a\$b", r"[$]a$", r"^\w+-\d+$", r"^(AA|UA)$", r"a?b?c?", r"^.$"]


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
        }
    )
    fields = [
        Field("amount", "float"), Field("kind", "str"), Field("at", "time"), Field("day", "date"), Field("flag", "bool"),
        Field("card", "str", personal=True), Field("name", "str"), Field("other", "int"),
    ]  # fmt: skip
    assert request_rules(spec, fields) == {
        "amount": FieldRule(required=True, min=0, max=9.5),
        "kind": FieldRule(members=("a", "1"), pattern=r"^[a-z1]\Z"),
        "at": FieldRule(min="2024-01-01T00:00:00+00:00"),
        "day": FieldRule(max="2024-02-03"),
        "flag": FieldRule(members=(True,)),
        "card": FieldRule(pattern=r"^\d\Z"),
    }


@pytest.mark.parametrize("pattern", PORTABLE)
@given(text=st.text(st.sampled_from("aAbcNU12-@x$\n."), max_size=6))
def test_a_portable_pattern_says_the_same_as_the_check_of_the_data(pattern, text):
    rust = pl.select(pl.lit(text).str.contains(pattern)).item()
    assert (re.search(portable(pattern), text) is not None) == rust


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
    ],
)
def test_what_reads_otherwise_or_takes_long_is_left_out(pattern):
    assert portable(pattern) is None
