"""The command line: `microtome info | ingest | mask | tile | stats | predict | report | demo`.

Every verb parses its arguments, calls the public function of the same name and prints what came
of it; there is no work that only the command line can do.
"""

from ._app import main

__all__ = ["main"]
