"""Digests of bytes and of JSON values, and what tells whether a file is still the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path


def digest_bytes(*parts: bytes | memoryview) -> str:
    """blake2b of the concatenated parts, 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def digest_json(value: object) -> str:
    """Digest of a JSON value, whatever the order of its keys."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def file_states(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Path, size and time of each file, for a digest of what depends on them; of those that are there."""
    there = [(path, path.stat()) for path in paths if path.is_file()]
    return [(str(path), about.st_size, about.st_mtime_ns) for path, about in there]
