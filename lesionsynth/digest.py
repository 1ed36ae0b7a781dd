"""Digests of bytes and of JSON values."""

from __future__ import annotations

import hashlib
import json


def digest_bytes(*parts: bytes | memoryview) -> str:
    """blake2b of the concatenated parts, 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def digest_json(value: object) -> str:
    """Digest of a JSON value, whatever the order of its keys."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
