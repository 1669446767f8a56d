"""Drift: profiles of rows, their comparison with a reference (`compare`), segments, and a joint test (`jointly`)."""
