"""Profiles of engines in files, plain or compressed, so that one made on a GPU is explained elsewhere."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from harness.errors import UnusableProfile
from harness.records.profile import PROFILE_SCHEMA, EngineProfile
from harness.store.atomic import write_atomically
from harness.store.codec import from_plain, read_json, require_schema, to_json

SUFFIX = ".profile.json.gz"
_PLAIN_SUFFIX = ".profile.json"
_GZIP = b"\x1f\x8b"


def is_profile(path: Path) -> bool:
    """Whether a file is called as profiles are: `<stem>.profile.json` or `<stem>.profile.json.gz`."""
    return path.name.endswith((SUFFIX, _PLAIN_SUFFIX))


def read_profile(path: Path) -> EngineProfile:
    """The profile in a file.

    Raises:
        UnusableProfile: it is missing, cut, of another schema, or has a field that is missing or odd, by its name.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(_GZIP) else data
    except (OSError, EOFError, zlib.error) as error:
        raise UnusableProfile(f"{path} cannot be read ({error}); expected a profile that `enginegate explain --out DIR` left") from error
    plain = read_json(data, origin=str(path), refuse=UnusableProfile)
    require_schema(plain, PROFILE_SCHEMA, origin=str(path), refuse=UnusableProfile)
    return from_plain(EngineProfile, plain, origin=str(path), refuse=UnusableProfile)


def write_profile(path: Path, profile: EngineProfile) -> None:
    """Write it, compressed: a tower of 24 blocks takes 2 MB else.

    Raises:
        StoreFailed: it cannot be written.
    """
    write_atomically(path, gzip.compress(to_json(profile), mtime=0))
