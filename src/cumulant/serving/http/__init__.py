"""HTTP/1.1 server on asyncio: connections, messages, bodies; independent of models."""
