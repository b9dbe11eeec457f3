"""Where the tissue is on a slide."""

from ._detect import Kind, Method, detect_tissue

__all__ = ["Kind", "Method", "detect_tissue"]
