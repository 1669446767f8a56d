"""Answers for files of any size: read, scored and written piece by piece, at once, and gone on with after a kill."""
