"""Files of a source: listed, compared, and read as frames."""
