"""The start of a release: versions, servers, what is known of both."""
