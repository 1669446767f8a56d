"""What became of the predictions: labels that come late, and their join with the prediction log.

`ingest_file` and `ingest_inbox` take labels in; `Outcomes` joins them with the log and gives each newly labelled
prediction, and each mirrored request, once. Needs Polars.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.outcomes.cohorts import report
    from cumulant.outcomes.events import LabelsIngested, PredictionsImported, PredictionsLabelled
    from cumulant.outcomes.facts import Shown, newest_labels
    from cumulant.outcomes.files import kind_of
    from cumulant.outcomes.files_in_place import write_bytes
    from cumulant.outcomes.importing import Defaults, Imported, import_predictions
    from cumulant.outcomes.ingest import Taken, ingest_file, ingest_inbox, waiting
    from cumulant.outcomes.joining import Advanced, Outcomes
    from cumulant.outcomes.label_counts import Cohort, Report
    from cumulant.outcomes.labelled_log import LabelledLog
    from cumulant.outcomes.labels import LabelSchema
    from cumulant.outcomes.losses import LOSSES, Loss, class_probabilities, decision, read_outputs
    from cumulant.outcomes.pairs import Graded, Pair
    from cumulant.outcomes.place import INBOX, Ingested
    from cumulant.outcomes.prediction_refs import asked_names, asked_ref, key_ref, key_refs
    from cumulant.outcomes.scored import logged
    from cumulant.outcomes.store import locked, writing_to
    from cumulant.outcomes.stored_counts import stored_report
    from cumulant.outcomes.target_values import number

_HOMES = {
    "Advanced": "joining",
    "Cohort": "label_counts",
    "Defaults": "importing",
    "Graded": "pairs",
    "INBOX": "place",
    "Imported": "importing",
    "Ingested": "place",
    "LOSSES": "losses",
    "LabelSchema": "labels",
    "LabelledLog": "labelled_log",
    "LabelsIngested": "events",
    "Loss": "losses",
    "Outcomes": "joining",
    "Pair": "pairs",
    "PredictionsImported": "events",
    "PredictionsLabelled": "events",
    "Report": "label_counts",
    "Shown": "facts",
    "Taken": "ingest",
    "class_probabilities": "losses",
    "import_predictions": "importing",
    "ingest_file": "ingest",
    "ingest_inbox": "ingest",
    "kind_of": "files",
    "asked_names": "prediction_refs",
    "asked_ref": "prediction_refs",
    "key_ref": "prediction_refs",
    "key_refs": "prediction_refs",
    "locked": "store",
    "logged": "scored",
    "newest_labels": "facts",
    "number": "target_values",
    "read_outputs": "losses",
    "decision": "losses",
    "report": "cohorts",
    "stored_report": "stored_counts",
    "waiting": "ingest",
    "write_bytes": "files_in_place",
    "writing_to": "store",
}

__all__ = [
    "INBOX",
    "LOSSES",
    "Advanced",
    "Cohort",
    "Defaults",
    "Graded",
    "Imported",
    "Ingested",
    "LabelSchema",
    "LabelledLog",
    "LabelsIngested",
    "Loss",
    "Outcomes",
    "Pair",
    "PredictionsImported",
    "PredictionsLabelled",
    "Report",
    "Shown",
    "Taken",
    "asked_names",
    "asked_ref",
    "class_probabilities",
    "decision",
    "import_predictions",
    "ingest_file",
    "ingest_inbox",
    "key_ref",
    "key_refs",
    "kind_of",
    "locked",
    "logged",
    "newest_labels",
    "number",
    "read_outputs",
    "report",
    "stored_report",
    "waiting",
    "write_bytes",
    "writing_to",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
