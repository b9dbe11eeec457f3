"""Packing: a cohort rewritten into the layout from which its tiles are read fastest."""

from ._pack import PackedImage, pack

__all__ = ["PackedImage", "pack"]
