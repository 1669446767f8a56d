"""Files of a source: listed, and read as frames."""
