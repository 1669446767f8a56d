"""The demo: a year of flights, with the public Python API alone."""
