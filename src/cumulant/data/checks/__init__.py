"""Rules of a source, for rows, batches and whole snapshots, and the verdict on them."""
