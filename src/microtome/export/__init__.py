"""Images written for other programs: `write_ome_tiff` makes one file that QuPath and others open.

`label_outlines` turns labels into polygons along the edges of pixels.
"""

from ._ome_tiff import TiffCodec, write_ome_tiff
from ._outlines import Ring, label_outlines

__all__ = ["Ring", "TiffCodec", "label_outlines", "write_ome_tiff"]
