"""A lineage as label and text, for every rendering."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.core.ids import short
from cumulant.flows.reports import wording

if TYPE_CHECKING:
    from cumulant.flows.registry.lineage import Lineage
    from cumulant.flows.registry.models import LearnedRows

#: packages that decide a model's numbers; the JSON document has all
_TELLING = ("cumulant", "lightgbm", "numpy", "onnxruntime", "optuna", "polars", "scikit-learn")
_MANY = 5


def _learned(rows: LearnedRows) -> str:
    chosen = "" if rows.of is None else f", of the {rows.chosen:,} that training.rows chose out of {rows.of:,}"
    return f"{rows.rows:,} rows{chosen}"


def lines(found: Lineage) -> list[tuple[str, object]]:
    """From the model back to files, code and settings, one pair a line."""
    rows: list[tuple[str, object]] = [
        ("model", f"{found.model.uri}" + (f" ({', '.join(found.model.aliases)})" if found.model.aliases else "")),
        ("trained", f"{wording.instant(found.created)} by run {found.run}"),
        ("target", found.target),
        ("as of", found.as_of),
        ("learned from", _learned(found.learned)),
        ("features", f"{len(found.features)}, plan {short(found.plan)}"),
    ]
    for source in found.sources:
        text = f"snapshot {short(source.snapshot)}, {source.rows:,} rows, accepted {wording.instant(source.accepted)}"
        rows.append((f"source {source.source}", text))
        rows += [("", f"{file.url}, {file.rows:,} rows, SHA-256 {short(file.sha256)}") for file in source.files[:_MANY]]
        if len(source.files) > _MANY:
            rows.append(("", f"and {len(source.files) - _MANY} more files: --json lists them"))
    told = [f"{name} {found.packages[name]}" for name in _TELLING if name in found.packages]
    rows += [
        ("code", found.code or "outside of a repository"),
        ("environment", f"{short(found.environment)}: Python {found.python}, {', '.join(told)}"),
        ("servable", found.servable),
    ]
    return [(label, text) for label, text in rows if text is not None]
