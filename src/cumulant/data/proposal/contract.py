"""The declaration in force: the project file's own rules over those of a contract file."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from cumulant.core.errors import DataError
from cumulant.data.proposal.odcs import Contract, from_odcs
from cumulant.data.rules.verdict_spec import TableRule
from cumulant.data.spec import RuleSpec, SourceSpec

Rules = TypeVar("Rules", RuleSpec, TableRule)


def read_contract(spec: SourceSpec, *, source: str, root: Path) -> Contract | None:
    """The contract file of a source, or None where it declares none.

    Raises:
        DataError: the file is missing or is none.
    """
    if spec.contract is None:
        return None
    path = root / spec.contract
    if not path.is_file():
        raise DataError(
            f"source {source}: there is no contract file {spec.contract}",
            subject=source,
            hint="paths are relative to the project",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{spec.contract} is not UTF-8 text", subject=spec.contract, hint="convert it") from error
    return from_odcs(text, table=source)


def merge_contract(spec: SourceSpec, contract: Contract) -> SourceSpec:
    """The contract's rules, overridden attribute by attribute by those of `spec`."""
    rules = dict(contract.rules)
    for column, rule in spec.rules.items():
        rules[column] = _over(rules[column], rule) if column in rules else rule
    return msgspec.structs.replace(
        spec,
        rules=rules,
        table=_over(contract.table, spec.table),
        key=spec.key or list(contract.key),
        event_time=spec.event_time or contract.event_time,
        known_time=spec.known_time or contract.known_time,
        personal=list(dict.fromkeys([*spec.personal, *contract.personal])),
    )


def _over(base: Rules, own: Rules) -> Rules:
    """`base` with every attribute that `own` sets differently from its default."""
    default = msgspec.structs.asdict(type(own)())
    chosen = {name: value for name, value in msgspec.structs.asdict(own).items() if value != default[name]}
    return msgspec.structs.replace(base, **chosen)
