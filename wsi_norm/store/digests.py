"""What proves that a store is what was written: SHA-256 digests, each bound to the one before.

    arrays     of each array, whatever is written once: its metadata, and its data unless in shards
    identity   of what a store says of itself when it is made, the arrays' digests included
    shard      of the identity, the shard's number, its flags, and the checksums of its tiles
    content    of what a finished store says of itself, and of all shards' digests

A shard's digest is over the CRC-32C of each chunk, not over the bytes: these are there already, and
SHA-256 of all bytes would take a tenth of a tile's CPU time. Enough for accidents; nothing here is
a signature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

BYTES = 32
"""Of a digest."""

WRITTEN_LATER = ("identity_sha256", "counts", "complete", "content_sha256")
"""What of the attribute is not known when a store is made."""


def of_array(metadata: bytes, data: bytes = b"") -> str:
    """Of an array's metadata, and of the object that holds all its data, if one does."""
    return _sha256([metadata, data]).hex()


def of_identity(attribute: Mapping[str, Any]) -> str:
    """Of the attribute as it was when the store was made."""
    said = {key: value for key, value in attribute.items() if key not in WRITTEN_LATER}
    return _sha256([_canonical(said)]).hex()


def of_shard(identity: str, shard: int, flags: bytes, checksums: bytes, index: bytes) -> bytes:
    """Of a shard: its object of `flags`, the checksums of its chunks, and where they lie."""
    return _sha256([identity.encode(), b"%d" % shard, flags, checksums, index])


def of_parts(parts: Iterable[bytes]) -> bytes:
    """Of what something is made of, in its order."""
    return _sha256(parts)


def of_content(attribute: Mapping[str, Any], shards: Iterable[bytes]) -> str:
    """Of a finished store."""
    said = {key: value for key, value in attribute.items() if key != "content_sha256"}
    return _sha256([_canonical(said), *shards]).hex()


def _canonical(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def _sha256(parts: Iterable[bytes]) -> bytes:
    """Of parts, each with its length, so that none can pass for the end of the one before."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little"))
        whole.update(part)
    return whole.digest()
