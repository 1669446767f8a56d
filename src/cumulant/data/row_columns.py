"""Columns that rows of a snapshot get beside their own."""

#: the number of a row in its source
ROW = "__row"
#: the moments, in microseconds, from and until which a row is in force; null where it is from the start, or still is
FROM, UNTIL = "__from", "__until"
