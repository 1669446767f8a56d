"""Columns that rows get beside their own, in a snapshot, its parts and its quarantine."""

#: the number of a row in its source, counted from 0
ROW = "__row"
#: of a refused row: the rule that refused it, and its file
RULE, FILE = "__rule", "__file"
#: the moments, in microseconds, from and until which a row is in force; null where it is from the start, or still is
FROM, UNTIL = "__from", "__until"
#: of rows of a stream: whether a row came too late for online features
LATE = "__late"
