"""Quantities as people write them: ``10ms``, ``2mJ``, ``30dB``."""

from __future__ import annotations

import re

from isa.errors import InputError

PREFIXES = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9}


def quantity(text: str, unit: str, option: str, example: str) -> float:
    """The number of ``unit`` in ``text``, behind a prefix of the SI or none. Raises InputError naming ``option``."""
    found = re.fullmatch(rf"\s*([0-9.eE+-]+)\s*([mµun]?){unit}\s*", text)
    try:
        number = float(found[1]) if found else None
    except ValueError:
        number = None
    if found is None or number is None:
        raise InputError(f"{option} {text!r}: must be a number and its unit, as {example}")
    return number * PREFIXES[found[2]]
