"""Packing: a cohort rewritten into the layout from which its tiles are read fastest."""

from ._image import PackedImage
from ._pack import PackOrder, pack

__all__ = ["PackOrder", "PackedImage", "pack"]
