"""Whole HTTP requests as bytes, with rows that differ; one file carries them to the clients."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

WIDTH = 30
Bytes = list[bytes]


def rows_of(count: int, rows: int, seed: int = 1) -> list[np.ndarray]:
    """`count` matrices of `rows` rows; four decimals, as such numbers come."""
    random = np.random.default_rng(seed)
    return [random.normal(size=(rows, WIDTH)).round(4).astype(np.float32) for _ in range(count)]


def post(path: str, body: bytes, headers: str = "content-type: application/json\r\n") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


def json_infer(matrices: list[np.ndarray], path: str = "/v2/models/bench/infer") -> Bytes:
    found = []
    for matrix in matrices:
        data = [round(value, 4) for value in matrix.ravel().tolist()]
        tensor = {"name": "input", "datatype": "FP32", "shape": list(matrix.shape), "data": data}
        found.append(post(path, json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()))
    return found


def binary_infer(matrices: list[np.ndarray], path: str = "/v2/models/bench/infer") -> Bytes:
    found = []
    for matrix in matrices:
        raw = matrix.tobytes()
        tensor = {
            "name": "input",
            "datatype": "FP32",
            "shape": list(matrix.shape),
            "parameters": {"binary_data_size": len(raw)},
        }
        document = json.dumps(
            {"inputs": [tensor], "parameters": {"binary_data_output": True}}, separators=(",", ":")
        ).encode()
        headers = f"content-type: application/octet-stream\r\ninference-header-content-length: {len(document)}\r\n"
        found.append(post(path, document + raw, headers))
    return found


def write(path: Path, requests: Bytes) -> Path:
    """Lengths on the first line, then the requests one after another."""
    path.write_bytes(" ".join(str(len(one)) for one in requests).encode() + b"\n" + b"".join(requests))
    return path


def read(path: Path) -> Bytes:
    head, _, rest = path.read_bytes().partition(b"\n")
    found, at = [], 0
    for length in map(int, head.split()):
        found.append(rest[at : at + length])
        at += length
    return found
