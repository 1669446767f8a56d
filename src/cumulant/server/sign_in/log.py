"""The log of what was refused at the sign-in, for operators: the caller is told no reason."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import msgspec

from cumulant.core.errors import CumulantError


def log_failure(error: CumulantError) -> None:
    """Write a line on standard error. The messages hold no token and nothing that the request sent."""
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": "warning",
        "sign_in": "failed",
        "reason": error.message,
    }
    sys.stderr.write(msgspec.json.encode(line).decode() + "\n")
