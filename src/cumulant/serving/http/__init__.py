"""HTTP/1.1 on asyncio: connections, messages, bodies. It knows nothing of models."""
