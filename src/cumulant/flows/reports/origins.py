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


def _learned_text(rows: LearnedRows) -> str:
    chosen = "" if rows.of is None else f", of the {rows.chosen:,} that training.rows chose out of {rows.of:,}"
    return f"{rows.rows:,} rows{chosen}"


def lines(lineage: Lineage) -> list[tuple[str, object]]:
    """From the model back to files, code and settings, one pair a line."""
    rows: list[tuple[str, object]] = [
        ("model", f"{lineage.model.uri}" + (f" ({', '.join(lineage.model.aliases)})" if lineage.model.aliases else "")),
        ("trained", f"{wording.instant(lineage.created)} by run {lineage.run}"),
        ("target", lineage.target),
        ("as of", lineage.as_of),
        ("learned from", _learned_text(lineage.learned)),
        ("features", f"{len(lineage.features)}, plan {short(lineage.plan)}"),
    ]
    for source in lineage.sources:
        text = f"snapshot {short(source.snapshot)}, {source.rows:,} rows, accepted {wording.instant(source.accepted)}"
        rows.append((f"source {source.source}", text))
        rows += [("", f"{file.url}, {file.rows:,} rows, SHA-256 {short(file.sha256)}") for file in source.files[:_MANY]]
        if len(source.files) > _MANY:
            rows.append(("", f"and {len(source.files) - _MANY} more files: --json lists them"))
    packages = [f"{name} {lineage.packages[name]}" for name in _TELLING if name in lineage.packages]
    rows += [
        ("code", lineage.code or "outside of a repository"),
        ("environment", f"{short(lineage.environment)}: Python {lineage.python}, {', '.join(packages)}"),
        ("servable", lineage.servable),
    ]
    return [(label, text) for label, text in rows if text is not None]
