"""Named spaces and the transforms between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from microtome.errors import FormatError, InvalidInputError, UnknownNameError

from ._axes import Axis, CoordinateSpace
from ._rfc5 import transform_from_json
from ._transforms import CoordinateTransform, IdentityTransform

__all__ = ["TransformGraph"]


@dataclass(frozen=True, slots=True)
class TransformGraph:
    """Coordinate spaces by name, and the transforms that connect them.

    Parameters
    ----------
    spaces
        The spaces by name.
    edges
        (source, target, transform); inverses need not be given.

    Raises
    ------
    InvalidInputError
        If an edge speaks of a space that is not there, or of other axes than it has.
    """

    spaces: Mapping[str, CoordinateSpace]
    edges: Sequence[tuple[str, str, CoordinateTransform]]

    def __post_init__(self) -> None:
        for source, target, transform in self.edges:
            ends = [(source, transform.input_axes), (target, transform.output_axes)]
            for name, axes in ends:
                if name not in self.spaces or self.spaces[name].axis_names != axes:
                    msg = f"{transform!r} cannot connect {source!r} and {target!r}: no space {name!r} with axes {axes}"
                    raise InvalidInputError(msg)

    @classmethod
    def from_scene(cls, scene: Mapping[str, Any]) -> TransformGraph:
        """Read the `scene` object of OME-NGFF 0.6, or any object of its shape.

        Parameters
        ----------
        scene
            With `coordinateSystems` and `coordinateTransformations`.

        Raises
        ------
        FormatError
            If it is incomplete, names a space twice, or has a transform that cannot be read.
        """
        try:
            spaces: dict[str, CoordinateSpace] = {}
            for system in scene["coordinateSystems"]:
                axes = tuple(Axis(a["name"], a.get("unit")) for a in system["axes"])
                if system["name"] in spaces:
                    msg = f"there are two coordinate systems {system['name']!r}"
                    raise FormatError(msg)
                spaces[system["name"]] = CoordinateSpace(axes)
            edges: list[tuple[str, str, CoordinateTransform]] = []
            for document in scene.get("coordinateTransformations", []):
                source, target = _name(document["input"]), _name(document["output"])
                for name in (source, target):
                    if name not in spaces:
                        msg = f"a transform speaks of the coordinate system {name!r}, there are {list(spaces)}"
                        raise FormatError(msg)
                ends = spaces[source].axis_names, spaces[target].axis_names
                edges.append((source, target, transform_from_json(document, *ends)))
        except (KeyError, TypeError) as error:
            msg = f"coordinate systems or transforms are incomplete: {type(error).__name__} {error}"
            raise FormatError(msg) from error
        return cls(spaces, edges)

    def transform(self, source: str, target: str) -> CoordinateTransform:
        """Return the transform from one space to another along the fewest edges.

        Parameters
        ----------
        source, target
            Names of the spaces.

        Raises
        ------
        UnknownNameError
            If there is no such space, or no way between them.
        InvalidInputError
            If the way needs an inverse that does not exist.
        """
        for name in (source, target):
            if name not in self.spaces:
                msg = f"no coordinate system {name!r}; there are {list(self.spaces)}"
                raise UnknownNameError(msg)
        axes = self.spaces[source].axis_names
        found: dict[str, CoordinateTransform] = {source: IdentityTransform(axes, axes)}
        queue = deque([source])
        while queue and target not in found:
            here = queue.popleft()
            for first, second, transform in self.edges:
                if first == here and second not in found:
                    found[second] = transform @ found[here]
                    queue.append(second)
                elif second == here and first not in found:
                    found[first] = transform.inverse_transform() @ found[here]
                    queue.append(first)
        if target not in found:
            msg = f"no transforms lead from {source!r} to {target!r}"
            raise UnknownNameError(msg)
        return found[target]


def _name(end: Any) -> str:
    """Return the name of a transform's end, which 0.6 may wrap together with a path."""
    return str(end["name"]) if isinstance(end, dict) else str(end)
