"""Both versions on the same labelled rows before a release."""
