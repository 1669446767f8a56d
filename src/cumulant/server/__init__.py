"""The HTTP API: every verb and every read of projects, for programs; pages for people are in `cumulant.console`."""
