"""All operations of the API, by subject. A path with a fixed last word stands before one with a parameter there."""

from __future__ import annotations

from cumulant.server.operations import (
    alerts,
    data,
    events,
    jobs,
    models,
    predictions,
    project,
    releases,
    review,
    runs,
    subjects,
)

OPERATIONS = (
    *project.OPERATIONS,
    *jobs.OPERATIONS,
    *events.OPERATIONS,
    *runs.OPERATIONS,
    *data.OPERATIONS,
    *models.OPERATIONS,
    *predictions.OPERATIONS,
    *alerts.OPERATIONS,
    *review.OPERATIONS,
    *releases.OPERATIONS,
    *subjects.OPERATIONS,
)
