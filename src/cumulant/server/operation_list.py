"""All operations of the API, by subject. A path with a fixed last word stands before one with a parameter there."""

from __future__ import annotations

from cumulant.server.operations import (
    access,
    alerts,
    data,
    events,
    features,
    identities,
    jobs,
    labels,
    maintenance,
    models,
    monitoring,
    predictions,
    project,
    release_plan,
    releases,
    review,
    runs,
    stack,
    subjects,
    training,
)

OPERATIONS = (
    *project.OPERATIONS,
    *stack.OPERATIONS,
    *maintenance.OPERATIONS,
    *jobs.OPERATIONS,
    *events.OPERATIONS,
    *runs.OPERATIONS,
    *data.OPERATIONS,
    *features.OPERATIONS,
    *training.OPERATIONS,
    *models.OPERATIONS,
    *predictions.OPERATIONS,
    *labels.OPERATIONS,
    *monitoring.OPERATIONS,
    *alerts.OPERATIONS,
    *review.OPERATIONS,
    *release_plan.OPERATIONS,
    *releases.OPERATIONS,
    *subjects.OPERATIONS,
    *identities.OPERATIONS,
    *access.OPERATIONS,
)
