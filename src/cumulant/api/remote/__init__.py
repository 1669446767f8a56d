"""A project on a server, with the methods of a local one: `cumulant.connect(url)`."""
