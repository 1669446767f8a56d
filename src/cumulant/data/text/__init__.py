"""Values that are written as text: CSV, dates, numbers, identifiers, and their conversion to column types."""
