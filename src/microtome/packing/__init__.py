"""Packing: a cohort rewritten into the layout from which its tiles are read fastest."""

from ._pack import PackedImage, PackOrder, pack

__all__ = ["PackOrder", "PackedImage", "pack"]
