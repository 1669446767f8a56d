"""Parts of the log with journals, as tests of several modules make them."""

from __future__ import annotations

from datetime import date

from log_support import entry

from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.serving.prediction_log.storage import log_folder
from cumulant.serving.prediction_log.storage.part_writer import DAY_US, LogParts

NOON = 20_000 * DAY_US + DAY_US // 2
DAY = date.fromordinal(date(1970, 1, 1).toordinal() + 20_000)


def parts_of(folder, failed=lambda error, rows: None):
    return LogParts(folder, PersonalValueMask(b"", {"m": []}), file_size=2**26, failed=failed)


def journals(folder):
    return [file.path for file in log_folder.list_journals(folder)]


def journaled(folder, count):
    """Parts whose journal has so many rows, and which were never closed."""
    parts = parts_of(folder)
    for number in range(count):
        parts.add_durable(entry(f"r{number}", now=NOON), "w", "")
        parts.commit()
    return parts
