"""Digests: pinned values, order of keys, joined parts."""

from __future__ import annotations

import numpy as np
import pytest

from lesionsynth.digest import digest_bytes, digest_json


def test_pinned_values() -> None:
    assert digest_bytes(b"lesionsynth") == "b4fe3aca1e510464b58f6a55882c24e6"
    assert digest_json({"a": [1, 2.5, None], "b": "ü"}) == "b8b0ea932db0f8f2bebcb164c3456b86"


def test_parts_are_concatenated() -> None:
    assert digest_bytes(b"ab", b"c") == digest_bytes(b"abc")
    assert digest_bytes(memoryview(np.arange(4, dtype=np.uint8))) == digest_bytes(b"\0\1\2\3")
    assert digest_bytes() != digest_bytes(b"\0")


def test_json_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    values = [1, "1", 1.0, [1], {"1": 1}, None, True, [1, 2], [2, 1]]
    assert len({digest_json(value) for value in values}) == len(values)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        digest_json({1, 2})
