"""Batch prediction for files of any size: read, scored and written piece by piece, resumed after a kill."""
