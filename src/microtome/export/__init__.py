"""Images written for other programs: `write_ome_tiff` makes one file that QuPath and others open."""

from ._ome_tiff import TiffCodec, write_ome_tiff

__all__ = ["TiffCodec", "write_ome_tiff"]
