"""Conformance cases of the expression operators: what every compiler of the tree must answer.

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_my_compiler(case):
        assert case.accepts(my_compiler(case.node, case.kinds, case.row))

A case is one row, one tree and its value. Trees are given as `dtypes.resolve` leaves them. Times are microseconds
since 1970 UTC and dates days; a compiler with types of its own converts before it compares.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from cumulant.core.expr import Call, Column, Literal, Moment, Node, Scalar
from cumulant.core.plan import DType

#: every case reads from one row of these columns
KINDS: dict[str, DType] = {
    "i": "int",
    "j": "int",
    "zero": "int",
    "x": "float",
    "y": "float",
    "null": "float",
    "none": "int",
    "t": "time",
    "u": "time",
    "d": "date",
    "s": "str",
    "missing": "str",
    "yes": "bool",
    "no": "bool",
    "unknown": "bool",
}
#: 2013-03-10 is the day on which New York puts its clocks forward; t is 06:59:59.5 UTC, one second before
ROW: dict[str, bool | int | float | str | None] = {
    "i": 7,
    "j": -2,
    "zero": 0,
    "x": 2.5,
    "y": -7.5,
    "null": None,
    "none": None,
    "t": 1362898799500000,
    "u": 1362898800500000,
    "d": 15774,
    "s": "  Été 7 ",
    "missing": None,
    "yes": True,
    "no": False,
    "unknown": None,
}


class ExpressionCase(msgspec.Struct, frozen=True):
    """`node` over `ROW` is `value`, floats within a relative 1e-12."""

    node: Node
    value: bool | int | float | str | None

    def __str__(self) -> str:
        return show(self.node)

    def accepts(self, value: object) -> bool:
        """Whether a compiler's answer is right, in its type too (true is not 1, and 1 is not 1.0)."""
        if isinstance(self.value, float) and isinstance(value, float):
            return math.isclose(value, self.value, rel_tol=1e-12, abs_tol=0.0)
        return type(value) is type(self.value) and value == self.value


def show(node: Node) -> str:
    """The tree as a call: `add(i, 1)`."""
    if isinstance(node, Call):
        options = [f"{name}={value!r}" for name, value in node.options.items()]
        return f"{node.op}({', '.join([*(show(argument) for argument in node.args), *options])})"
    if isinstance(node, Literal):
        return repr(node.value)
    return str(node.micros) if isinstance(node, Moment) else node.name


def call(op: str, *args: Node | Scalar, **options: Any) -> Call:
    """A call; text arguments that name a column of `ROW` are that column, others constants."""
    return Call(op, tuple(_argument(argument) for argument in args), options)


def _argument(value: Node | Scalar) -> Node:
    if isinstance(value, str) and value in ROW:
        return Column(value)
    if value is None or isinstance(value, bool | int | float | str):
        return Literal(value)
    return value


def text(value: str) -> Literal:
    """A text constant, even where it is the name of a column."""
    return Literal(value)


_PARIS, _NEW_YORK, _KATHMANDU = "Europe/Paris", "America/New_York", "Asia/Kathmandu"

CASES: tuple[ExpressionCase, ...] = tuple(
    ExpressionCase(node, value)
    for node, value in (
        # arithmetic: ints stay ints, a float makes floats, true counts as 1
        (call("add", "i", 1), 8),
        (call("add", "i", "x"), 9.5),
        (call("add", "i", "yes"), 8),
        (call("add", "i", "none"), None),
        (call("sub", "i", "j"), 9),
        (call("mul", "j", "x"), -5.0),
        (call("mul", 1e308, "i"), None),
        (call("add", 9223372036854775807, 1), None),
        (call("add", -9223372036854775807, -1), -9223372036854775808),
        (call("sub", -9223372036854775807, "i"), None),
        (call("mul", 4611686018427387904, "j"), -9223372036854775808),
        (call("mul", 4611686018427387904, "i"), None),
        (call("neg", -9223372036854775808), None),
        (call("abs", -9223372036854775808), None),
        (call("floordiv", -9223372036854775808, -1), None),
        (call("mod", -9223372036854775808, -1), 0),
        (call("div", "i", "j"), -3.5),
        (call("div", "i", 2), 3.5),
        (call("div", "i", "zero"), None),
        (call("div", "zero", "zero"), None),
        (call("div", "null", "zero"), None),
        (call("floordiv", "i", "j"), -4),
        (call("floordiv", "i", "zero"), None),
        (call("floordiv", "y", "i"), -2.0),
        (call("floordiv", "x", 0.0), None),
        (call("floordiv", 1.0, 0.1), 10.0),
        (call("mod", "i", "j"), -1),
        (call("mod", "j", "i"), 5),
        (call("mod", "i", "zero"), None),
        (call("mod", "y", "i"), 6.5),
        (call("mod", "x", 0.0), None),
        (call("pow", "i", 2), 49.0),
        (call("pow", "y", 0.5), None),
        (call("pow", "zero", -1), None),
        (call("pow", "j", -1), -0.5),
        (call("neg", "i"), -7),
        (call("neg", "yes"), -1),
        (call("neg", "null"), None),
        (call("abs", "y"), 7.5),
        (call("abs", "j"), 2),
        (call("sqrt", "x"), 1.5811388300841898),
        (call("sqrt", "y"), None),
        (call("log", "i"), 1.9459101490553132),
        (call("log", "zero"), None),
        (call("log", "y"), None),
        (call("log1p", "x"), 1.252762968495368),
        (call("log1p", -1), None),
        (call("exp", "j"), 0.1353352832366127),
        (call("exp", 1000), None),
        (call("round", "x", digits=0), 2.0),
        (call("round", "y", digits=0), -8.0),
        (call("round", 1.005, digits=2), 1.0),
        (call("eq", call("round", call("div", 20.0, "i"), digits=1), 2.9), True),
        (call("eq", call("div", call("add", "i", 22), 10), 2.9), True),
        (call("round", "i", digits=2), 7),
        (call("floor", "y"), -8.0),
        (call("ceil", "y"), -7.0),
        (call("ceil", "i"), 7),
        (call("clip", "i", max=5), 5),
        (call("clip", "y", min=0.0), 0.0),
        (call("clip", "i", min=0.5, max=20), 7.0),
        (call("clip", "null", min=1.0), None),
        (call("min", "i", "x", "j"), -2.0),
        (call("max", "i", "j"), 7),
        (call("max", "i", "none"), None),
        (call("min", "i"), 7),
        (call("max", "t", "u"), 1362898800500000),
        # comparison
        (call("eq", "i", 7.0), True),
        (call("ne", "i", "j"), True),
        (call("lt", "j", "x"), True),
        (call("le", "i", "none"), None),
        (call("gt", "yes", "zero"), True),
        (call("ge", "x", 2.5), True),
        (call("eq", "s", text("  Été 7 ")), True),
        (call("lt", text("Z"), text("a")), True),
        (call("eq", "missing", text("a")), None),
        (call("eq", "none", None), None),
        (call("eq", "yes", Literal(value=True)), True),
        (call("lt", "t", "u"), True),
        (call("gt", "t", Moment(1362898799499999)), True),
        (call("eq", "d", Moment(1362873600000000)), True),
        # Kleene logic
        (call("and", "no", "unknown"), False),
        (call("and", "unknown", "no"), False),
        (call("and", "yes", "unknown"), None),
        (call("and", "yes", "yes"), True),
        (call("or", "yes", "unknown"), True),
        (call("or", "unknown", "yes"), True),
        (call("or", "no", "unknown"), None),
        (call("or", "no", "no"), False),
        (call("and", "no", None), False),
        (call("not", "no"), True),
        (call("not", "unknown"), None),
        # membership: a null is in no list and not out of it
        (call("is_in", "i", members=[1, 7]), True),
        (call("is_in", "i", members=[7.0, 1.5]), True),
        (call("is_in", "x", members=[2]), False),
        (call("is_in", "i", members=[]), False),
        (call("is_in", "none", members=[]), None),
        (call("is_in", "missing", members=["a"]), None),
        (call("is_in", "s", members=["a", "  Été 7 "]), True),
        (call("is_in", "yes", members=[False]), False),
        # nulls and choice
        (call("is_null", "none"), True),
        (call("is_null", "i"), False),
        (call("is_null", call("div", "i", "zero")), True),
        (call("fill_null", "none", 3), 3),
        (call("fill_null", "none", 3.5), 3.5),
        (call("fill_null", "i", 3.5), 7.0),
        (call("fill_null", "missing", text("?")), "?"),
        (call("coalesce", "none", "null", "i"), 7.0),
        (call("coalesce", "none", None), None),
        (call("when", "yes", 1, 2), 1),
        (call("when", "unknown", 1, 2), 2),
        (call("when", "no", 1, 2.5), 2.5),
        (call("when", "yes", "none", 2), None),
        (call("when", "no", 1, None), None),
        (call("when", call("gt", "x", 2), text("high"), text("low")), "high"),
        # text counts characters, and blanks are the six of ASCII
        (call("lower", "s"), "  été 7 "),
        (call("upper", "s"), "  ÉTÉ 7 "),
        (call("strip", "s"), "Été 7"),
        (call("strip", "missing"), None),
        (call("length", "s"), 8),
        (call("length", text("日本")), 2),
        (call("contains", "s", text="té"), True),
        (call("contains", "s", text=".*"), False),
        (call("starts_with", "s", text="É"), False),
        (call("ends_with", "s", text="7 "), True),
        (call("slice", "s", start=2, length=3), "Été"),
        (call("slice", "s", start=-2, length=1), "7"),
        (call("slice", text("abc"), start=-5, length=3), "a"),
        (call("slice", text("abc"), start=5, length=3), ""),
        (call("concat", text("a"), text("b"), text("c"), separator="-"), "a-b-c"),
        (call("concat", text("a"), "missing", separator=""), None),
        (call("concat", text("${env:HOME}"), text("\\n'\n"), separator='"'), "${env:HOME}\"\\n'\n"),
        # parts of times: the second before New York's spring change, and the one after
        (call("hour", "t", zone="UTC"), 6),
        (call("hour", "t", zone=_NEW_YORK), 1),
        (call("hour", "u", zone=_NEW_YORK), 3),
        (call("minute", "t", zone=_KATHMANDU), 44),
        (call("weekday", "t", zone=_PARIS), 7),
        (call("weekday", Moment(1362960000000000), zone=_NEW_YORK), 7),
        (call("day", "t", zone="UTC"), 10),
        (call("month", "t", zone="UTC"), 3),
        (call("year", Moment(-1), zone="UTC"), 1969),
        (call("year", Moment(1356998400000000), zone=_NEW_YORK), 2012),
        (call("day_of_year", "t", zone="UTC"), 69),
        (call("week", Moment(1356998400000000), zone="UTC"), 1),
        (call("week", Moment(1609459200000000), zone="UTC"), 53),
        (call("hour", Moment(5695956000000000), zone=_PARIS), 12),
        (call("hour", None, zone="UTC"), None),
        (call("weekday", "d", zone=_NEW_YORK), 7),
        (call("year", "d", zone="UTC"), 2013),
        (call("seconds_between", "u", "t"), 1.0),
        (call("seconds_between", "t", "d"), 25199.5),
        (call("eq", call("seconds_between", Moment(2900000), Moment(0)), 2.9), True),
        (call("seconds_between", "t", None), None),
        (call("shift", "t", micros=-500000), 1362898799000000),
        (call("shift", "d", micros=1), 1362873600000001),
        (call("shift", Moment(9223372036854775807), micros=1), None),
        (call("seconds_between", Moment(9223372036854775807), Moment(-9223372036854775807)), 18446744073709.55),
        # casts
        (call("cast", "y", to="int"), -7),
        (call("cast", 1e19, to="int"), None),
        (call("cast", "yes", to="int"), 1),
        (call("cast", "i", to="float"), 7.0),
        (call("cast", "i", to="str"), "7"),
        (call("cast", "yes", to="str"), "true"),
        (call("cast", "x", to="bool"), True),
        (call("cast", "zero", to="bool"), False),
        (call("cast", text(" 12\n"), to="int"), 12),
        (call("cast", text("-3.9"), to="int"), -3),
        (call("cast", text("1e3"), to="int"), 1000),
        (call("cast", text("99999999999999999999"), to="int"), None),
        (call("cast", text("1_000"), to="int"), None),
        (call("cast", text(""), to="float"), None),
        (call("cast", text(" .5 "), to="float"), 0.5),
        (call("cast", text("5."), to="float"), 5.0),
        (call("cast", text("nan"), to="float"), None),
        (call("cast", text("inf"), to="float"), None),
        (call("cast", text("1e999"), to="float"), None),
        (call("cast", "s", to="float"), None),
        (call("cast", "missing", to="int"), None),
        (call("cast", None, to="float"), None),
        # a constant that is not finite is null too
        (call("add", Literal(math.inf), 1), None),
    )
)
