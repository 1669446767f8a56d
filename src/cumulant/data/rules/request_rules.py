"""The rules of a source that can be decided on one value, as a servable carries them for the values of requests."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from datetime import date

from cumulant.core.plan import Field
from cumulant.core.servable import FieldRule
from cumulant.data.policy import SourcePolicy
from cumulant.data.rules.row_checks import parse_bound, parse_member
from cumulant.data.spec import Bound, RuleSpec

#: repeats in a pattern that is tried at every place of a text, and in one that is tried at its begin only: each makes
#: the time to fail longer by a factor of the text's length
_MOST_REPEATS, _MOST_ANCHORED = 1, 2
#: parts that may be absent, and groups with alternatives: each doubles it
_MOST_OPTIONAL = 3
#: what Rust and Python read alike. `\d`, `\w`, `\s` and `\b` mean the same of ASCII texts, with Python's flag for them
_LITERAL = r"\\(?:[ -/:;=?@\[-`{-~]|[tnrfva]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})"
_CLASS = r"\\[dDwWsS]"
_SET = rf"\[\^?+(?!])(?:{_LITERAL}|{_CLASS}|[^\[\]\\])+\]"
_ONE = rf"(?:{_LITERAL}|{_CLASS}|{_SET}|\\[Ab]|[^\\\[\](){{}}*+?|])"
_REPEAT = r"(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})"
_PATTERN = re.compile(rf"(?:{_ONE}(?:{_REPEAT}\??)?|\((?!\?)|\||\)\??)*", re.DOTALL)
_PART = re.compile(rf"{_SET}|\\.|(\$)", re.DOTALL)
_ESCAPED_OR_SET = re.compile(rf"{_SET}|\\.", re.DOTALL)
_MANY = re.compile(r"[*+]|\{[0-9]+,[0-9]*\}")


def request_rules(policy: SourcePolicy, fields: Iterable[Field], *, source: str) -> dict[str, FieldRule]:
    """Request field to the rules of each of its values, without those of `unchecked_rules`.

    Raises:
        DataError: a rule names a value that its column cannot hold.
    """
    declared = policy.spec.rules
    rules = {
        field.name: _rule(declared[field.name], field, source, required=field.name in policy.required)
        for field in fields
        if field.name in declared
    }
    return {name: rule for name, rule in rules.items() if rule != FieldRule()}


def unchecked_rules(policy: SourcePolicy, fields: Iterable[Field]) -> dict[str, tuple[str, ...]]:
    """Request field to those rules of one value that requests are not checked for.

    These are allowed values of personal fields, and patterns without a Python form (`to_python_pattern`) or of a field
    that is no text.
    """
    names: dict[str, tuple[str, ...]] = {}
    for field in fields:
        rule = policy.spec.rules.get(field.name, RuleSpec())
        members = ("in",) if rule.in_ is not None and field.personal else ()
        pattern = ("pattern",) if rule.pattern is not None and _pattern(rule, field) is None else ()
        if members or pattern:
            names[field.name] = members + pattern
    return names


def _rule(rule: RuleSpec, field: Field, source: str, *, required: bool) -> FieldRule:
    members = None if rule.in_ is None or field.personal else rule.in_
    pattern = _pattern(rule, field)
    return FieldRule(
        required=required,
        min=_bound(rule.min, field, source),
        max=_bound(rule.max, field, source),
        members=None if members is None else tuple(parse_member(m, field.dtype, field.name, source) for m in members),
        pattern=pattern,
        declared_pattern=None if pattern is None else rule.pattern,
        number_format=rule.number_format if field.dtype in ("int", "float") else None,
        date_format=rule.date_format if field.dtype in ("time", "date") else None,
    )


def _pattern(rule: RuleSpec, field: Field) -> str | None:
    return to_python_pattern(rule.pattern) if rule.pattern is not None and field.dtype == "str" else None


def _bound(bound: Bound | None, field: Field, source: str) -> Bound | None:
    if bound is None:
        return None
    limit = parse_bound(bound, field.dtype, field.name, source)
    return limit.isoformat() if isinstance(limit, date) else limit


def to_python_pattern(pattern: str) -> str | None:
    """A pattern in Rust's syntax as Python's; None where it differs there, or may take exponential time.

    One that begins with `(?a)` matches the same ASCII texts only.
    """
    if not _PATTERN.fullmatch(pattern) or _is_slow(pattern):
        return None
    # `$` is the end of the text in Rust; in Python also before a last line break.
    python = _PART.sub(lambda part: r"\Z" if part[1] else part[0], pattern)
    if re.search(r"\\[dDwWsSb]", re.sub(_LITERAL, "", pattern)):
        python = f"(?a){python}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of the operations on sets, which are Rust's
            re.compile(python)
    except (re.error, Warning):
        return None
    return python


def _is_slow(pattern: str) -> bool:
    bare = _ESCAPED_OR_SET.sub("x", pattern)
    most = _MOST_ANCHORED if bare.startswith("^") and "|" not in bare else _MOST_REPEATS
    alternatives = bare.count("(") if "|" in bare else 0
    return len(_MANY.findall(bare)) > most or bare.count("?") + alternatives > _MOST_OPTIONAL
