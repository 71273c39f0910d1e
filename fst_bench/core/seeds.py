"""Seeds without state: every random choice is named by its purpose, so a resume needs no generator's state."""

import hashlib


def seed_for(*parts: object) -> int:
    """Return a 56-bit seed, a pure function of the parts: `seed_for(run_seed, "sample", step, call)`."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:7], "big")
