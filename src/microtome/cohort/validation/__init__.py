"""Everything that later steps take for granted, checked before they stumble over it."""

from ._stale import find_stale
from ._survey import Finding, Severity
from ._validate import validate

__all__ = ["Finding", "Severity", "find_stale", "validate"]
