"""Text that stands for something else: durations, sizes, shares, counts, times, rates, hosts, references to secrets.

A field of a spec names its form by `Meta(extra={"text": "duration"})`; several forms are joined with `|`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cumulant.core import units
from cumulant.core.errors import UsageError, did_you_mean
from cumulant.core.network.hosts import host_name

SECRET = re.compile(r"\$\{secret:([A-Za-z_][A-Za-z0-9_.-]*)\}")
_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_]+):([^}]*)\}?")
_PASSWORD = re.compile(r"(?<=://)([^/?#@:\s]*):([^@/\s]*)@")


_FORMS: dict[str, Callable[[str], object]] = {
    "duration": units.duration,
    "size": units.size,
    "share": units.share,
    "count": units.count,
    "moment": units.moment,
    "rate": units.rate,
    "host": host_name,
}

#: those that a number without a unit has too
_NUMBERS = ("share", "count")

#: the same forms for editors, as patterns of JSON Schema
PATTERNS: dict[str, str] = {
    "duration": r"^\s*(\d+(\.\d+)?\s*(ms|s|min|m|h|d|w)\s*)+$",
    "size": r"^\s*\d+(\.\d+)?\s*(B|kB|MB|GB|KiB|MiB|GiB|TiB)\s*$",
    "share": r"^\s*(\d+(\.\d+)?|\.\d+)\s*%?$",
    "count": r"^\s*\d+(\.\d+)?\s*[kMG]?\s*$",
    "moment": r"^\d{4}-\d{2}-\d{2}",
    "rate": r"^\s*\d+(\.\d+)?\s*/\s*(hour|day|week|month)\s*$",
}


def text_fault(form: str, value: str | float) -> str | None:
    """Why `value` is in none of the forms (`duration|share`), with how to write it; None where it fits one."""
    forms = [name for name in form.split("|") if name in _FORMS]
    faults: list[str] = []
    for name in forms:
        if isinstance(value, (int, float)) and name not in _NUMBERS:
            faults.append(f"{value} has no unit; {_EXAMPLES[name]}")
            continue
        try:
            _FORMS[name](value)  # type: ignore[arg-type]  # numbers reach those forms only that take them
        except UsageError as error:
            faults.append(error.full_text)
        except (ValueError, OverflowError):
            faults.append(f'"{value}" is not a {name}; {_EXAMPLES[name]}')
        else:
            return None
    if len(faults) > 1:
        return f'"{value}" is neither a {" nor a ".join(forms)}; ' + " or ".join(_EXAMPLES[name] for name in forms)
    return faults[0] if faults else None


_EXAMPLES = {
    "duration": "write a number and a unit: 90s, 15m, 2h, 30d, 4w",
    "size": "write a number and a unit: 64MiB, 10GB",
    "share": "write 5% or a number from 0 to 1",
    "count": "write a whole number, or 500k, 2M, 1.5M",
    "moment": "write 2013-04-01 or 2013-04-01T06:00:00Z",
    "rate": "write a number a period: 100/day, 2/month",
    "host": "write a name or an address: models.example.com",
}


#: (spec, key) -> form, for fields whose specs do not name their form
FORMS: dict[tuple[str, str], str] = {
    ("SourceSpec", "quarantine"): "share",
    ("SourceSpec", "keep"): "duration",
    ("SourceSpec", "freshness"): "duration",
    ("SourceSpec", "ttl"): "duration",
    ("SourceSpec", "keep_refused"): "duration",
    ("SourceSpec", "lateness"): "duration",
    ("SourceSpec", "idle"): "duration",
    ("SourceSpec", "memory"): "size",
    ("ResourcesSpec", "memory"): "size",
    ("StepResourcesSpec", "memory"): "size",
    ("RuleSpec", "nulls"): "share",
    ("TableRule", "fresh"): "duration",
    ("TrainingSpec", "since"): "moment",
    ("TrainingSpec", "rows"): "count",
    ("TrainingSpec", "half_life"): "duration",
    ("TrainingSpec", "time"): "duration",
    ("Threshold", "alerts"): "rate",
    ("Threshold", "rate"): "share",
    ("EvaluationSpec", "test"): "duration|share",
}


def secrets_in(text: str) -> list[str]:
    """Names of the secrets that `text` refers to."""
    return SECRET.findall(text)


def placeholder_fault(text: str) -> str | None:
    """Why a `${...}` in `text` would never be filled in, or None."""
    for match in _PLACEHOLDER.finditer(text):
        if SECRET.fullmatch(match[0]):
            continue
        if match[1].lower() == "env":
            return "${env:...} is not read, so that a file means the same everywhere; write ${secret:NAME}"
        if match[1].lower() in ("secret", "secrets"):
            return "a secret is written ${secret:NAME}, with a name of letters, digits, _ - and ."
        if did_you_mean(match[1].lower(), ("secret", "env")):
            return f"${{{match[1]}:...}} is not known; a secret is written ${{secret:NAME}}"
    return None


def masked(text: str) -> str:
    """`text` without the passwords that stand in its URLs; references to secrets are kept as references."""
    return _PASSWORD.sub(lambda match: match[0] if SECRET.fullmatch(match[2]) else f"{match[1]}:***@", text)
