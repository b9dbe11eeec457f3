"""Files of microscopes become images of a cohort, one at a time or by a manifest."""

from ._ingest import ingest
from ._manifest import OnError, ingest_manifest
from ._report import IngestOutcome, IngestState

__all__ = ["IngestOutcome", "IngestState", "OnError", "ingest", "ingest_manifest"]
