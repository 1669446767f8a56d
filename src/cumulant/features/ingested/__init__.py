"""Rows of ingested streams as events of online state: whole batches at once, column by column."""
