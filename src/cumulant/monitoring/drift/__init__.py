"""What moved: profiles of rows that add up, and their comparison with a reference.

`profile` counts, column by column; `compare` looks at each window and says what is alarming; `segments` says which rows
carry it; `jointly` asks a classifier whether all columns together have moved. Needs Polars, numpy and scipy.
"""
