"""Registries of schemas that have the REST API of Confluent's."""
