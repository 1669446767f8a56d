"""The start of a release: versions, servers, champion history, paired evaluation."""
