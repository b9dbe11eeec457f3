"""Where things are: axes, coordinate spaces, linear transforms, pixel size.

Two conventions meet here and are never mixed up:

* **boxes** are half-open and speak of pixel *edges*: `[0, width)` covers an image exactly, and a
  level that is half as fine maps onto the finer one by a pure factor of two;
* **OME-NGFF** transforms on disk speak of pixel *centres*: that same level has the scale 2 and
  the translation 0.5.

`transform_from_ngff` and `transform_to_ngff` convert at the border, everything above uses boxes.
Tables speak of edges, too: their micrometres are counted from the upper left edge of the image, and
`MicrometreGrid` is what leads there, from pixels and from OME-NGFF's space.
"""

from ._axes import Axis, CoordinateSpace
from ._centres import transform_from_ngff, transform_to_ngff
from ._compound import BijectionTransform, SequenceTransform
from ._graph import TransformGraph
from ._micrometres import FROM_EDGE, MicrometreGrid, counts_from_edge, micrometres_note
from ._resolution import MPP_SOURCES, Mpp, MppSource, Resolution
from ._rfc5 import transform_from_json, transform_to_json
from ._transforms import (
    AffineTransform,
    CoordinateTransform,
    IdentityTransform,
    ScaleTransform,
    TranslationTransform,
    UniformScaleTransform,
    transform_from_matrix,
)

__all__ = [
    "FROM_EDGE",
    "MPP_SOURCES",
    "AffineTransform",
    "Axis",
    "BijectionTransform",
    "CoordinateSpace",
    "CoordinateTransform",
    "IdentityTransform",
    "MicrometreGrid",
    "Mpp",
    "MppSource",
    "Resolution",
    "ScaleTransform",
    "SequenceTransform",
    "TransformGraph",
    "TranslationTransform",
    "UniformScaleTransform",
    "counts_from_edge",
    "micrometres_note",
    "transform_from_json",
    "transform_from_matrix",
    "transform_from_ngff",
    "transform_to_json",
    "transform_to_ngff",
]
