"""File formats beside CSV: JSON lines, Parquet, ORC, Excel."""
