"""How people write sizes, durations and addresses in abgate.yaml, and what they mean.

PURE: text in, numbers out, ValueError with what would be right. No file, no schema, no default lives here.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZES |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


@dataclass(frozen=True, slots=True)
class Address:
    """Where something listens; path is what follows the port ("" or "/..."), for metrics pages."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}{self.path}"

    @property
    def authority(self) -> str:
        """host:port without the path."""
        return str(Address(self.host, self.port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def size(value: object) -> int:
    """Bytes of "32MiB", "10GiB", "64KB" or a plain number of bytes; ValueError otherwise."""
    if type(value) is int and value > 0:
        return value
    match = _NUMBER_UNIT.fullmatch(value.strip()) if isinstance(value, str) else None
    factor = _SIZES.get(match[2].upper() or "B") if match else None
    if match is None or factor is None or float(match[1]) <= 0:
        raise ValueError(f"must be a size above 0 such as 32MiB, 10GiB or 65536 (bytes), not {value!r}")
    return round(float(match[1]) * factor)


def duration(value: object) -> float:
    """Seconds of "30s", "500ms", "2m", "1h" or a plain number of seconds; ValueError otherwise."""
    if type(value) in (int, float) and 0 < value < 10**9:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    match = _NUMBER_UNIT.fullmatch(value.strip()) if isinstance(value, str) else None
    factor = _DURATIONS.get(match[2] or "s") if match else None
    if match is None or factor is None or float(match[1]) <= 0:
        raise ValueError(f"must be a duration above 0 such as 30s, 500ms or 2m, not {value!r}")
    return float(match[1]) * factor


def address(value: object, *, any_port: bool = False, path: bool = False) -> Address:
    """host:port (IPv6 in brackets), with a /path where path is true; port 0 only where any_port is true."""
    wanted = "127.0.0.1:8080" + ("/metrics" if path else "")
    if not isinstance(value, str):
        raise ValueError(f"must be host:port such as {wanted}, not {value!r}")
    authority, slash, tail = value.strip().partition("/")
    host, colon, port = authority.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    good = bool(colon and bare) and (bracketed or ":" not in bare) and port.isascii() and port.isdigit()
    if not good or (slash and not path) or any(c.isspace() for c in value.strip()):
        raise ValueError(f"must be host:port such as {wanted} (IPv6 hosts in brackets), not {value!r}")
    number = int(port)
    if not (0 if any_port else 1) <= number <= 65535:
        raise ValueError(f"has port {number}; a port is a number from 1 to 65535")
    return Address(bare, number, slash + tail)
