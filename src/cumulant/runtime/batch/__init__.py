"""Answers for files of any size: read, scored and written piece by piece, at once, and gone on with after a kill."""

from __future__ import annotations

from cumulant.runtime.batch.flow import BatchRequest, Summary, predict_file

__all__ = ["BatchRequest", "Summary", "predict_file"]
