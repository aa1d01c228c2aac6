"""The keyed hash that stands for a unit in everything that is stored.

Raw unit ids leave the process on no way: not in records, not in metrics, not in logs. The key is made once per installation
and kept beside the records, so that hashes of one installation agree with each other and with nobody else's.
"""

from __future__ import annotations

import os
import secrets
from hashlib import blake2b
from pathlib import Path

from gateway.errors import ConfigError

KEY_BYTES = 32


def unit_hash(unit: str, key: bytes) -> str:
    """16 hex digits of BLAKE2b (RFC 7693) keyed with `key`; "" for a request without a unit."""
    if not unit:
        return ""
    return blake2b(unit.encode("utf-8", "surrogateescape"), key=key, digest_size=8).hexdigest()


def load_key(path: Path) -> bytes:
    """The installation's key, made (mode 0600) where there is none; ConfigError when the file holds something else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = bytes.fromhex(path.read_text("ascii").strip())
        else:
            key = secrets.token_bytes(KEY_BYTES)
            with os.fdopen(fd, "w") as file:
                file.write(key.hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: the key for unit hashes cannot be read or made: {error}"]) from error
    if len(key) != KEY_BYTES:
        raise ConfigError([f"{path}: holds {len(key)} bytes of key, not {KEY_BYTES}; remove it to have a new one made"])
    return key
