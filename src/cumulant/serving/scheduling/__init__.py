"""When a model scores what: at once while idle, gathered while busy, refused when it could not be in time."""
