"""Images written for other programs: `write_ome_tiff` makes one file that QuPath and others open.

`label_outlines` turns labels into polygons along the edges of pixels.
"""

from ._ome_tiff import TiffCodec, free_tiff_place, verify_tiff_type, write_ome_tiff
from ._outlines import Ring, label_outlines

__all__ = [
    "Ring",
    "TiffCodec",
    "free_tiff_place",
    "label_outlines",
    "verify_tiff_type",
    "write_ome_tiff",
]
