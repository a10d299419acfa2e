"""What was seen of a case, kept until one of its files changes: a survey of thousands of scans takes hours."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import scipy
import SimpleITK as sitk

from .. import __version__
from ..config import Segment
from ..errors import CamlError
from ..serialization import from_json, to_json
from .case import Case
from .case_fingerprint import BINS, DIGEST_BYTES, CaseFingerprint, Sighting, digest_of_voxels, look_at
from .digests import source_stamps
from .io import read_case
from .memos import Memos
from .preparation import uses_label

#: Raised with every change of what is seen, or of how it is kept.
_FORMAT = 4
_SCAN_FORMAT = 1
_DIGEST = re.compile(rb"[0-9a-f]{%d}" % (2 * DIGEST_BYTES))
_COUNTS = np.dtype("<i8")


def recalled(case: Case, channels: int, declared: Sequence[Segment], memos: Memos | None) -> Sighting:
    """Return what ``look_at`` sees, without reading the case where it was seen before and has not changed since.

    Raises DataError where it cannot be used; this is not kept. Where nothing can be kept, nothing is lost but time.
    """
    before = None if memos is None else _key(case, channels, declared)
    if memos is None or before is None:
        return look_at(case, channels, declared)
    content = memos.read(before)
    seen = None if content is None else _decoded(content, channels)
    if seen is None:
        seen = look_at(case, channels, declared)
        if _key(case, channels, declared) == before:  # else a file changed while it was read
            with suppress(OSError, CamlError):  # a full disk, or a folder that may only be read
                memos.write(before, _encoded(seen))
                if seen.scan:
                    memos.write(_scan_key(case), seen.scan.encode("ascii"))
    return seen


def scan_digest(case: Case, memos: Memos) -> str:
    """Return the digest of a case's voxels (``digest_of_voxels``), by which a scan is known under any name.

    Its files are read only where it was not looked at before, or has changed since. Empty where they cannot be read:
    whoever needs the scan says so.
    """
    try:
        before = _scan_key(case)
        known = memos.read(before)
        if known is not None and _DIGEST.fullmatch(known):
            return known.decode("ascii")
        found = digest_of_voxels(volume.array for volume in read_case(case))
        unchanged = _scan_key(case) == before
    except (OSError, CamlError):
        return ""
    if unchanged:
        with suppress(OSError, CamlError):
            memos.write(before, found.encode("ascii"))
    return found


def _scan_key(case: Case) -> str:
    """All that a scan's digest depends on; raises DataError, OSError where a file cannot be reached."""
    return json.dumps(["scan", _SCAN_FORMAT, [source_stamps(path, case.id) for path in case.images]])


def _key(case: Case, channels: int, declared: Sequence[Segment]) -> str | None:
    """All that a sighting depends on, its makers included; None where a file cannot be reached."""
    try:
        images = [source_stamps(path, case.id) for path in case.images]
        label = source_stamps(case.label, case.id) if case.label is not None and uses_label(case) else None
    except (OSError, CamlError):
        return None
    makers = [__version__, np.__version__, scipy.__version__, sitk.Version.VersionString()]
    values = ["sighting", _FORMAT, makers, case.id, case.role, channels, to_json(list(declared)), images, label]
    return json.dumps(values)


def _encoded(seen: Sighting) -> bytes:
    """JSON, which keeps floats exactly, in a line, and the counts."""
    facts = {
        "case": to_json(seen.case),
        "segments": to_json(seen.segments),
        "notes": list(seen.notes),
        "compact": seen.compact,
        "scan": seen.scan,
        "seconds": seen.seconds,
    }
    counts = np.stack([seen.everywhere, seen.around]).astype(_COUNTS)
    return json.dumps(facts).encode("ascii") + b"\n" + zlib.compress(counts.tobytes())


def _decoded(content: bytes, channels: int) -> Sighting | None:
    """The sighting, or None for anything else."""
    line, _, packed = content.partition(b"\n")
    try:
        facts = json.loads(line)
        segments = facts["segments"]
        everywhere, around = np.frombuffer(zlib.decompress(packed), _COUNTS).reshape(2, channels, BINS).astype(np.int64)
        return Sighting(
            from_json(CaseFingerprint, facts["case"]),
            None if segments is None else tuple(from_json(Segment, segment) for segment in segments),
            tuple(facts["notes"]),
            facts["compact"],
            everywhere,
            around,
            facts["scan"],
            facts["seconds"],
        )
    except (ValueError, KeyError, TypeError, CamlError, zlib.error):
        return None
