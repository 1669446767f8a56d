"""Kafka, and brokers that have its protocol."""
