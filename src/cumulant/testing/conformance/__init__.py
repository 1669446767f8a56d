"""One suite a port. A driver's test module subclasses it with a fixture named after the port.

What a driver cannot do stands in `gaps`, with the reason and the error it raises instead; the suite then checks
that this error is raised.
"""
