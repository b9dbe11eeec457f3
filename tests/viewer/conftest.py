"""A small cohort whose arrays are known, and servers of it on this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from microtome.cohort import (
    CODEXModality,
    CohortLayout,
    HEModality,
    add_cells,
    add_metadata,
    ingest,
    set_alignment,
    tile,
)
from microtome.coordinates import Mpp, Resolution
from microtome.image import MultiscaleImage, begin_image

RESOLUTION = Resolution.parse(0.5)
TOKEN = "t0ken_of-the-tests"
PANEL = ["DNA", "CD3", "CD8", "odd:name,&=%"]
CELL_TYPES = {1: "T cell", 2: "tumour <&>"}
# A quarter turn and a shift, in micrometres: (x, y) of codex goes to (250 - y, x + 20).
TURN = [[0.0, -1.0, 250.0], [1.0, 0.0, 20.0]]


@dataclass(frozen=True)
class Study:
    """A cohort, and the arrays that it was made from."""

    root: Path
    layout: CohortLayout
    he: NDArray[np.uint8]
    """(3, 613, 871)."""
    codex: NDArray[np.uint16]
    """(4, 300, 420)."""
    mask: NDArray[np.bool_]
    cells: NDArray[np.uint32]
    density: NDArray[np.float32]
    """(2, 154, 218) at 2 micrometres."""
    types: NDArray[np.uint8]
    """Of cells; of 3 nobody says what it is."""
    cell_rows: dict[int, dict[str, Any]]
    """What the table says of cells, by their numbers; of some nothing."""

    def image(self, tissue: str = "a", modality: str = "he") -> MultiscaleImage:
        """Open a picture as anybody would."""
        kind = HEModality() if modality == "he" else CODEXModality()
        return MultiscaleImage.open(self.layout.image(kind, RESOLUTION, tissue))


def predict(path: Path, pixels: NDArray[Any], mpp: float, **options: Any) -> None:
    """Write what a model would have: its corner is that of the image of 0.5 um pixels."""
    with begin_image(
        path,
        dtype=pixels.dtype,
        shape=pixels.shape,
        axes="cyx",
        mpp=Mpp.from_user(mpp),
        translation=((mpp - 0.5) / 2,) * 2,
        metadata={"microtome": {"prediction": {"source": "he/0_5mpp/images/a.ome.zarr"}}},
        **options,
    ) as image:
        image.level(0)[...] = pixels
        image.build_levels()


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Study:
    """Two tissues; of the first all there is to show, and codex turned by a right angle."""
    rng = np.random.default_rng(5)
    root = tmp_path_factory.mktemp("viewer") / "study"
    common: dict[str, Any] = {"cohort": root, "mpp": 0.5, "resolution": 0.5}
    he = rng.integers(0, 256, (3, 613, 871), np.uint8)
    codex = rng.integers(0, 4000, (4, 300, 420), np.uint16)
    for name, patient in (("a", "p1"), ("b", "p2")):
        shown = he if name == "a" else he[:, ::-1]
        ingest(
            shown, axes="cyx", tissue_id=name, modality="he", patient_id=patient, split="train",
            **common,
        )  # fmt: skip
    ingest(codex, axes="cyx", channel_names=PANEL, tissue_id="a", modality="codex", **common)
    ingest(
        codex[:2], axes="cyx", channel_names=PANEL[:2], tissue_id="b", modality="codex", **common
    )
    layout = CohortLayout.open(root)
    y, x = np.ogrid[: he.shape[1], : he.shape[2]]
    mask = (y - 300) ** 2 + (x - 400) ** 2 < 250**2
    cells = np.zeros(he.shape[1:], np.uint32)
    rows: dict[int, dict[str, Any]] = {}
    for number in range(1, 60):
        top, left = rng.integers(0, 590), rng.integers(0, 850)
        cells[top : top + 20, left : left + 17] = number
        if number % 5:
            rows[number] = {
                "centroid_y": (float(top) + 10) * 0.5,
                "centroid_x": (float(left) + 8.5) * 0.5,
                "CD3": number / 8,
                "note": None if number % 2 else f"cell {number}",
            }
    folder = layout.tissue_mask(RESOLUTION, "a").parent
    folder.mkdir(parents=True)
    for name in "ab":
        np.savez_compressed(folder / f"{name}.npz", mask=mask)
    (folder.parent / "cell_masks" / "instances").mkdir(parents=True)
    np.savez_compressed(folder.parent / "cell_masks" / "instances" / "a.npz", mask=cells)
    types = np.where(cells > 0, cells % 4, 0).astype(np.uint8)
    tasks = folder.parent / "cell_masks" / "phenotypes"
    tasks.mkdir()
    np.savez_compressed(tasks / "a.npz", mask=types)
    names = pa.table({"id": [0, *CELL_TYPES], "name": ["background", *CELL_TYPES.values()]})
    pq.write_table(names, tasks / "label_encoder.parquet")
    told = [{"tissue_id": "a", "cell_id": n, **row} for n, row in rows.items()]
    add_cells(root, pa.Table.from_pylist([*told, {**told[0], "tissue_id": "b", "CD3": -1.0}]))
    tile(root, tile_size=64)
    density = rng.random((2, 154, 218), np.float32)
    density[0, 10, 10] = np.nan
    predict(
        layout.predictions(RESOLUTION, "model") / "a.ome.zarr",
        density, 2.0, channel_names=["density", "rest"],
    )  # fmt: skip
    predict(
        layout.predictions(RESOLUTION, "types") / "a.ome.zarr",
        rng.integers(0, 5, (1, 154, 218), np.uint8), 2.0, kind="labels", channel_names=["type"],
    )  # fmt: skip
    set_alignment(root, "a", "codex", TURN)
    add_metadata(root, {"tissue_id": ["a", "b"], "age": [61, 47], "site": ["one", "one"]})
    return Study(root, layout, he, codex, mask, cells, density, types, rows)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application on this machine; gives `http://127.0.0.1:<port>`."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra `view` is not installed")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="session")
def serving() -> Any:
    """What serves an application, for tests in folders below."""
    return served


@pytest.fixture(scope="session")
def origin(study) -> Iterator[str]:
    """The address of a server of the cohort, without the token."""
    pytest.importorskip("starlette", reason="the extra `view` is not installed")
    from microtome.viewer import viewer_app

    with served(viewer_app(study.root, token=TOKEN)) as url:
        yield url


@pytest.fixture(scope="session")
def client(origin) -> Iterator[Any]:
    """Asks that server, below its token."""
    httpx = pytest.importorskip("httpx")
    with httpx.Client(base_url=f"{origin}/{TOKEN}/", timeout=60) as made:
        yield made


@pytest.fixture(scope="session")
def picture(client):
    """Fetch a picture as an array."""

    def fetch(path: str, **params: Any) -> NDArray[np.uint8]:
        import imagecodecs

        answer = client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        decode = {"image/png": imagecodecs.png_decode, "image/jpeg": imagecodecs.jpeg8_decode}
        return decode[answer.headers["content-type"]](answer.content)

    return fetch
