"""Kinesis, the streams of AWS."""
