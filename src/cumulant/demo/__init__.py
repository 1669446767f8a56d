"""The demo: flights of 2013, told with the public Python API alone."""
