"""Models that were made elsewhere: read, converted to a graph, compared with the original."""
