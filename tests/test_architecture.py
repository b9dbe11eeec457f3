"""The house stands: imports go down only, every room has its names in order, files stay small.

The rules are in docs/architecture.md. They are checked on the source, not on the imported package,
so that an import inside a function or under TYPE_CHECKING counts as much as one at the top.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src" / "microtome"

FLOORS = {
    "errors": 0,
    "progress": 0,
    "coordinates": 0,
    "storage": 1,
    "jobs": 1,
    "image": 2,
    "sources": 3,
    "regions": 3,
    "tiling": 3,
    "sampling": 3,
    "panels": 3,
    "standardize": 3,
    "segmentation": 3,
    "export": 3,
    "cohort": 4,
    "patching": 4,
    "normalization": 4,
    "augmentation": 4,
    "loading": 5,
    "packing": 5,
    "prediction": 5,
    "interop": 6,
    "view": 7,
    "viewer": 8,
    "cli": 9,
}
# Inside a room too: what stands directly in `cohort` is the ground, these stand on it by floor.
# From outside, `cohort` is one room; the inner ones see of each other only what `__init__.py` names.
INNER_FLOORS = {
    "cohort": {
        "cells": 1,
        "channels": 1,
        "statistics": 1,
        "tiles": 2,
        "datasets": 3,
        "validation": 3,
        "ingestion": 4,
    },
}
# They stand outside: one re-exports every room, the other starts the command line.
FREE = {"__init__", "__main__"}
# The foundation: every room stands on it, its own floor included, and it stands on nothing.
FOUNDATION = {"errors", "progress"}
# Engines that one room hides from all others, so that another can take their place.
ENGINES = {"tensorstore": "storage"}
VAGUE_NAMES = {
    "base",
    "common",
    "factories",
    "factory",
    "helper",
    "helpers",
    "misc",
    "util",
    "utils",
}
MOST_LINES = 500


# ------------------------------------------------------------------ the checker


def modules(root: Path) -> list[Path]:
    return sorted(root.rglob("*.py"))


def room_of(root: Path, module: Path) -> str:
    return module.relative_to(root).with_suffix("").parts[0]


def where(root: Path, module: Path, line: int) -> str:
    return f"{root.name}/{module.relative_to(root).as_posix()}:{line}"


def imported_names(root: Path, module: Path) -> Iterator[tuple[int, str]]:
    """Every dotted name that a module imports, made absolute: `from ..image import x` included."""
    package = (root.name, *module.relative_to(root).parent.parts)
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node.lineno, alias.name
            case ast.ImportFrom(module=name, names=names, level=level):
                base = package[: len(package) - level + 1] if level else ()
                origin = ".".join((*base, *([name] if name else [])))
                for alias in names:
                    yield node.lineno, f"{origin}.{alias.name}"
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
                called = function.attr if isinstance(function, ast.Attribute) else None
                called = function.id if isinstance(function, ast.Name) else called
                if called in {"import_module", "__import__"}:
                    yield node.lineno, name


def rooms_without_a_floor(root: Path) -> list[str]:
    rooms = {room_of(root, module) for module in modules(root)} - FREE
    return [
        f"{room}: a room with no floor. Add it to FLOORS in tests/test_architecture.py and to"
        " docs/architecture.md."
        for room in sorted(rooms - FLOORS.keys())
    ]


def imports_that_do_not_go_down(root: Path) -> list[str]:
    found: list[str] = []
    for module in modules(root):
        room = room_of(root, module)
        if room in FREE or room not in FLOORS:
            continue
        for line, name in imported_names(root, module):
            parts = name.split(".")
            if parts[0] != root.name or parts[1:2] == ["__version__"]:
                continue
            other = parts[1] if len(parts) > 1 else root.name
            if other == room or (other in FOUNDATION and room not in FOUNDATION):
                continue
            if other not in FLOORS:
                reason = f"{other!r} is no room: import from the room that has it"
            elif FLOORS[other] >= FLOORS[room]:
                reason = (
                    f"{room} (floor {FLOORS[room]}) imports {other} (floor {FLOORS[other]});"
                    " imports go to lower floors only"
                )
            else:
                continue
            found.append(f"{where(root, module, line)}: {reason}")
    return found


def inner_rooms_out_of_order(root: Path) -> list[str]:
    """Modules of an inner room that look up, or past the door of another inner room."""
    found: list[str] = []
    for room, floors in INNER_FLOORS.items():
        for module in modules(root / room):
            inside = module.relative_to(root / room).parts
            if inside == ("__init__.py",):
                continue
            own = inside[0] if len(inside) > 1 else None
            if own is not None and own not in floors:
                found.append(f"{where(root, module, 1)}: {own} has no floor in INNER_FLOORS")
                continue
            for line, name in imported_names(root, module):
                parts = name.split(".")
                if parts[:2] != [root.name, room] or len(parts) < 3:
                    continue
                other = parts[2]
                if other not in floors or other == own:
                    continue
                if len(parts) > 4 or (parts[3:4] and parts[3].startswith("_")):
                    found.append(f"{where(root, module, line)}: {name} passes by {other}'s door")
                if own is not None and floors[other] >= floors[own]:
                    found.append(
                        f"{where(root, module, line)}: {own} (inner floor {floors[own]}) imports"
                        f" {other} (inner floor {floors[other]})"
                    )
    return found


def engines_outside_their_room(root: Path) -> list[str]:
    return [
        f"{where(root, module, line)}: {engine} is imported in {ENGINES[engine]} only"
        for module in modules(root)
        for line, name in imported_names(root, module)
        if (engine := name.split(".")[0]) in ENGINES and room_of(root, module) != ENGINES[engine]
    ]


def in_order(name: str) -> tuple[int, list[tuple[int, str]]]:
    """CONSTANTS, then Classes, then the rest, numbers by value: the order `ruff` keeps."""
    constant = name.isupper() and len(name) > 1
    group = 0 if constant else 1 if name[:1].isupper() else 2
    pieces = [piece for piece in re.split(r"(\d+)", name) if piece]
    return group, [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces]


def packages_without_ordered_names(root: Path) -> list[str]:
    found: list[str] = []
    for init in sorted(root.rglob("__init__.py")):
        if any(part.startswith("_") for part in init.parent.relative_to(root).parts):
            continue
        names = next(
            (
                (node.lineno, [element.value for element in node.value.elts])
                for node in ast.parse(init.read_text(encoding="utf-8")).body
                if isinstance(node, ast.Assign)
                and [getattr(target, "id", None) for target in node.targets] == ["__all__"]
                and isinstance(node.value, ast.List | ast.Tuple)
                and all(isinstance(element, ast.Constant) for element in node.value.elts)
            ),
            None,
        )
        if names is None:
            found.append(f"{where(root, init, 1)}: no literal __all__")
        elif names[1] != sorted(set(names[1]), key=in_order):
            found.append(
                f"{where(root, init, names[0])}: __all__ is not sorted, or has a name twice"
            )
    return found


def files_too_long(root: Path) -> list[str]:
    return [
        f"{where(root, module, count)}: {count} lines; split it at {MOST_LINES}, by concept"
        for module in modules(root)
        if (count := len(module.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    ]


def files_with_vague_names(root: Path) -> list[str]:
    return [
        f"{where(root, module, 1)}: {part!r} says nothing; name the concept"
        for module in modules(root)
        for part in module.relative_to(root).with_suffix("").parts
        if part.strip("_") in VAGUE_NAMES
    ]


def plain(distribution: str) -> str:
    """The one spelling of a distribution's name: no extras, no versions, no dots or underscores."""
    name = re.split(r"[\s\[<>=!~;]", distribution, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def declared_for_users(pyproject: Path) -> set[str]:
    """What is installed for a user with all extras: the core, each that `all` names, the heavy ones."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    (everything,) = extras["all"]
    named = everything.removeprefix("microtome[").removesuffix("]").split(",")
    # They bring a hundred packages and fifty, so `all` does without.
    heavy = [*extras.get("spatialdata", []), *extras.get("soma", [])]
    requirements = [
        *project["dependencies"],
        *(line for extra in named for line in extras[extra]),
        *heavy,
    ]
    return {plain(requirement) for requirement in requirements}


def undeclared_imports(root: Path, declared: set[str]) -> list[str]:
    """Packages that are there by luck: because another one, or a test, happens to need them."""
    providers = packages_distributions()
    return [
        f"{where(root, module, line)}: {package} is not among the dependencies of pyproject.toml"
        for module in modules(root)
        for line, name in imported_names(root, module)
        if (package := name.split(".")[0]) and package not in sys.stdlib_module_names
        if package != root.name
        and not {plain(name) for name in providers.get(package, [package])} & declared
    ]


CHECKS = [
    rooms_without_a_floor,
    imports_that_do_not_go_down,
    inner_rooms_out_of_order,
    engines_outside_their_room,
    packages_without_ordered_names,
    files_too_long,
    files_with_vague_names,
]

# ------------------------------------------------------------------ the house


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house(check):
    assert modules(SOURCE), f"no source under {SOURCE}"
    found = check(SOURCE)
    assert not found, "\n" + "\n".join(found)


def test_every_package_it_imports_is_declared():
    found = undeclared_imports(SOURCE, declared_for_users(REPOSITORY / "pyproject.toml"))
    assert not found, "\n" + "\n".join(found)


# ------------------------------------------------------------------ the checker, on made-up houses


def house(folder: Path, files: dict[str, str]) -> Path:
    root = folder / "microtome"
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_a_good_house_passes_every_check(tmp_path):
    root = house(
        tmp_path,
        {
            "__init__.py": "from .cohort import Cohort\n__all__ = ['Cohort']\n",
            "__main__.py": "from microtome.cli import main\nmain()\n",
            "errors.py": "class MicrotomeError(Exception): ...\n",
            "storage/__init__.py": "from ._a import B, a\n__all__ = ['MAX', 'B', 'a', 'a2', 'a10']\n",
            "storage/_a.py": "import tensorstore\nfrom ..errors import MicrotomeError\n",
            "cohort/__init__.py": "__all__ = ()\n",
            "cohort/_c.py": "from . import _d\nfrom microtome import __version__, errors\n"
            "import microtome.storage as storage\n",
            "cohort/_d.py": "import microtomes\nfrom importlib import import_module\n"
            "import_module('microtome.errors')\n",
        },
    )
    assert [found for check in CHECKS for found in check(root)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import microtome.cohort",
        "import microtome.cohort._layout as layout",
        "from microtome.cohort import Cohort",
        "from microtome import cohort",
        "from ..cohort import Cohort",
        "from .. import cohort",
        "from ..cohort._layout import x",
        "from importlib import import_module; import_module('microtome.cohort')",
        "if TYPE_CHECKING:\n    from microtome.cohort import Cohort",
        "def f():\n    from ..cohort import Cohort",
    ],
)
@pytest.mark.parametrize("place", ["image/__init__.py", "image/_levels.py"])
def test_an_import_that_goes_up_is_found(tmp_path, place, line):
    root = house(tmp_path, {place: f"\n{line}\n", "cohort/__init__.py": ""})
    (found,) = imports_that_do_not_go_down(root)
    number = 2 + line.count("\n")
    assert found.startswith(f"microtome/{place}:{number}: image (floor 2) imports cohort (floor 4)")


def test_a_nested_module_resolves_its_dots_from_where_it_lies(tmp_path):
    text = "from ..._x import y\nfrom .. import regions\nfrom ... import regions\n"
    root = house(tmp_path, {"tiling/planners/_grid.py": text})
    # The first climbs out of the house to microtome._x, the second stays in tiling.
    first, third = imports_that_do_not_go_down(root)
    assert first.startswith("microtome/tiling/planners/_grid.py:1: '_x' is no room")
    assert "_grid.py:3: tiling (floor 3) imports regions (floor 3)" in third


def test_an_inner_room_that_looks_up_or_past_a_door_is_found(tmp_path):
    files = {
        "cohort/tiles/_t.py": "from microtome.cohort.validation import validate\n",
        "cohort/validation/_v.py": "from ..tiles._t import tile\nfrom .._layout import x\n",
        "cohort/lost/_l.py": "",
    }
    assert inner_rooms_out_of_order(house(tmp_path, files)) == [
        "microtome/cohort/lost/_l.py:1: lost has no floor in INNER_FLOORS",
        "microtome/cohort/tiles/_t.py:1: tiles (inner floor 2) imports validation (inner floor 3)",
        "microtome/cohort/validation/_v.py:1: microtome.cohort.tiles._t.tile passes by tiles's door",
    ]


def test_rooms_of_one_floor_do_not_import_each_other(tmp_path):
    root = house(tmp_path, {"tiling/_t.py": "from microtome.regions import PatchSpecs\n"})
    (found,) = imports_that_do_not_go_down(root)
    assert "tiling (floor 3) imports regions (floor 3)" in found


def test_every_room_stands_on_the_foundation_and_the_foundation_on_nothing(tmp_path):
    files = {
        "coordinates/_axes.py": "from microtome.errors import InvalidInputError\n",
        "errors.py": "from microtome import progress\n",
        "progress.py": "from .coordinates import Axis\n",
    }
    errors, progress = imports_that_do_not_go_down(house(tmp_path, files))
    assert "errors (floor 0) imports progress (floor 0)" in errors
    assert "progress (floor 0) imports coordinates (floor 0)" in progress


@pytest.mark.parametrize("line", ["import microtome", "from microtome import open_image"])
def test_a_room_does_not_import_the_front_door(tmp_path, line):
    root = house(tmp_path, {"cli/_main.py": line})
    (found,) = imports_that_do_not_go_down(root)
    assert "is no room" in found


def test_an_unknown_room_is_found(tmp_path):
    root = house(tmp_path, {"cellar/__init__.py": "", "attic.py": ""})
    attic, cellar = rooms_without_a_floor(root)
    assert attic.startswith("attic: a room with no floor")
    assert cellar.startswith("cellar: a room with no floor")
    assert "docs/architecture.md" in cellar


def test_an_engine_outside_its_room_is_found(tmp_path):
    text = "def f():\n    import tensorstore as ts\n"
    root = house(tmp_path, {"storage/_a.py": text, "image/_b.py": text})
    assert engines_outside_their_room(root) == [
        "microtome/image/_b.py:2: tensorstore is imported in storage only"
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", ":1: no literal __all__"),
        ("__all__ = sorted(['a'])\n", ":1: no literal __all__"),
        ("\n__all__ = ['b', 'a']\n", ":2: __all__ is not sorted"),
        ("__all__ = ['a', 'B']\n", ":1: __all__ is not sorted"),
        ("__all__ = ['Axis', 'MPP']\n", ":1: __all__ is not sorted"),
        ("__all__ = ['a', 'a']\n", ":1: __all__ is not sorted, or has a name twice"),
    ],
)
def test_names_out_of_order_are_found(tmp_path, text, complaint):
    root = house(tmp_path, {"image/__init__.py": text, "image/_private/__init__.py": ""})
    (found,) = packages_without_ordered_names(root)
    assert found.startswith(f"microtome/image/__init__.py{complaint}")


def test_a_long_file_is_found(tmp_path):
    root = house(tmp_path, {"image/_a.py": "x = 1\n" * 500, "image/_b.py": "x = 1\n" * 501})
    assert [found.split(":")[0] for found in files_too_long(root)] == ["microtome/image/_b.py"]


@pytest.mark.parametrize("name", ["utils.py", "image/_helpers.py", "common/_x.py", "image/base.py"])
def test_a_vague_name_is_found(tmp_path, name):
    root = house(tmp_path, {name: "", "image/_database.py": ""})
    (found,) = files_with_vague_names(root)
    assert found.startswith(f"microtome/{name}:1: ")


def test_an_undeclared_package_is_found(tmp_path):
    text = (
        "import json, numpy.typing\nfrom . import _b\ndef f():\n    import no_such_thing.x, yaml\n"
    )
    root = house(tmp_path, {"image/_a.py": text})
    # `yaml` comes in a distribution of another name.
    assert undeclared_imports(root, {"numpy", plain("PyYAML>=6")}) == [
        "microtome/image/_a.py:4: no_such_thing is not among the dependencies of pyproject.toml"
    ]


def test_what_a_user_has_is_the_core_and_the_extras_of_all(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text(
        "[project]\ndependencies = ['ome_zarr.models>=1', 'numpy']\n[project.optional-dependencies]\n"
        "torch = ['torch>=2']\nreport = ['Jinja2[i18n]>=3']\ntest = ['pytest']\n"
        "all = ['microtome[torch,report]']\n"
    )
    assert declared_for_users(path) == {"ome-zarr-models", "numpy", "torch", "jinja2"}
