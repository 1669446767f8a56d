"""Requests and answers of the HTTP paths: parsing, checks, schemas."""
