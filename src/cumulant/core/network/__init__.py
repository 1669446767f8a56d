"""Listening sockets, allowed hosts, certificates, the gateway's token, URLs of PostgreSQL."""
