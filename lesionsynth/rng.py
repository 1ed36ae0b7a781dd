"""Random streams addressed by name.

The numbers of a stream depend on the seed and on the parts of its name only: never on how many
streams were made before, on the process, or on the order of the work.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, *name: str | int) -> np.random.Generator:
    """Return the random generator called `name`.

    Each part is digested to fixed-width words, so that ``("a", "bc")`` and ``("ab", "c")``, or the
    integer 1 and the text "1", are different streams. A NumPy integer counts as an integer.

    Parameters
    ----------
    seed : int
        Seed of the recipe, not negative.
    *name : str or int
        Address, such as host case, copy index, step id, purpose.
    """
    words: list[int] = []
    for part in name:
        kind = "str" if isinstance(part, str) else "int"
        digest = hashlib.blake2b(f"{kind}:{part}".encode(), digest_size=16).digest()
        words.extend(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(words)))
