"""Messages of a stream as rows of a source: decoded, checked by its contract, and stored in batches."""
