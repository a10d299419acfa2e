"""Names of cases as a model's card has them: model files are passed on, and a case may bear its patient's name.

Who knows a name recognises it, and a training must: which cases it holds out depends on what its start model has learnt
from. A name is not read from its digest; but whoever guesses one can see whether it was there, and short numbers can be
guessed by trying all of them.
"""

from __future__ import annotations

import hashlib
import re

_DIGEST = re.compile("case-[0-9a-f]{20}")


def digest_of(case: str) -> str:
    """Return what a card has in place of the name of a case."""
    name = case.encode("utf-8", "surrogatepass")  # a stranger's card may list anything
    return f"case-{hashlib.blake2b(name, digest_size=10, person=b'caml case').hexdigest()}"


def as_digest(listed: str) -> str:
    """Return the digest of a name that a card lists; cards of earlier versions have the names themselves."""
    return listed if _DIGEST.fullmatch(listed) else digest_of(listed)
