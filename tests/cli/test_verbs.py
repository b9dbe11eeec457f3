"""Every verb end to end: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from microtome.cohort import CohortLayout, MultiplexImagingDataset, open_tiles, read_tissues
from microtome.image import MultiscaleImage
from microtome.loading import TileOrder
from microtome.sources import image_names, open_image
from microtome.standardize import RgbStandardizer
from microtome.tiling import TileTable

VERBS = [
    "info",
    "ingest",
    "mask",
    "tile",
    "stats",
    "predict",
    "report",
    "view",
    "export",
    "bench",
    "pack",
    "conformance",
    "demo",
]


def test_from_a_slide_to_a_report(run: Any, slide: Path, tmp_path: Path) -> None:
    root = tmp_path / "cohort"
    options = ("--cohort", root, "--tissue", "t", "--modality", "he", "--resolution", "0.5")
    done = run("ingest", slide, *options, "--patient", "p7", "--split", "train")
    assert done.code == 0, done.err
    stored = root / "he/0_5mpp/images/t.ome.zarr"
    assert done.out == f"{stored}: 3 x 613 x 541, 0.5 um/px (from tag), 4 levels\n"
    np.testing.assert_array_equal(
        MultiscaleImage.open(stored).level(0)[...], np.moveaxis(tifffile.imread(slide), -1, 0)
    )
    (row,) = read_tissues(CohortLayout.open(root)).to_pylist()
    assert (row["patient_id"], row["split"]) == ("p7", "train")

    done = run("mask", root)
    assert done.code == 0, done.err
    name, _, share = done.out.strip().partition(": ")
    assert name == "t"
    # The disc is 3.14 * 230 * 200 of 613 * 541 pixels; detection sees pixels of 16 of these.
    assert float(share.removesuffix("% tissue")) == pytest.approx(43.6, abs=8)

    done = run("tile", root, "--size", "64", "--tolerance", "0.5")
    assert done.code == 0, done.err
    table = pq.read_table(root / "tiling/0_5mpp/default/64_tile_coordinates.parquet")
    assert done.out == f"t: {table.num_rows} tiles of 64 px\n"
    assert table.num_rows > 20

    done = run("stats", root)
    assert done.code == 0, done.err
    assert "nothing to compute" in done.out

    done = run("predict", root, "--tile-size", "256")
    assert done.code == 0, done.err
    prediction, embeddings = (Path(line) for line in done.out.splitlines())
    assert prediction == root / "predictions/0_5mpp/demo/t.ome.zarr"
    assert MultiscaleImage.open(prediction).level_shape(0)[-2:] == (613, 541)
    assert pq.read_table(embeddings).num_rows == table.num_rows

    done = run("report", root, "-o", tmp_path / "report.html")
    assert done.code == 0, done.err
    assert done.out == f"{tmp_path / 'report.html'}\n"
    page = (tmp_path / "report.html").read_text()
    assert "<html" in page
    loads = ('src="http', "src='http", "url(http", "<link", "<script src")
    assert not any(word in page for word in loads), "self-contained"

    done = run("info", root, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["tilings"][0]["tiles"] == table.num_rows
    assert [str(root / path) for path in found["predictions"]] == [str(embeddings), str(prediction)]
    assert found["tissues"][0]["patient_id"] == "p7"
    assert done.err == ""


def test_info_of_an_image(run: Any, slide: Path) -> None:
    plain = run("info", slide)
    assert (plain.code, plain.err) == (0, "")
    assert "0.5 um/px (from tag)" in plain.out
    machine = run("info", slide, "--json")
    found = json.loads(machine.out)
    assert found["levels"][0] == {
        "shape": [3, 613, 541],
        "mpp": [0.5, 0.5],
        "chunks": [3, 128, 128],
        "shards": None,
    }
    assert found["mpp_source"] == "tag"


def test_multiplex_from_the_command_line(run: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.gamma(0.6, 90, (2, 150, 140)).astype(np.uint16)
    pixels[:, :20] = 0
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    root = tmp_path / "c"
    options = ("--cohort", root, "--tissue", "t", "--modality", "imc", "--mpp", "1")
    done = run("ingest", tmp_path / "a.tif", *options)
    assert done.code == 2
    assert "--channel" in done.err
    assert not root.exists()
    done = run("ingest", tmp_path / "a.tif", *options, "--channel", "DNA", "--channel", "CD3")
    assert done.code == 0, done.err
    assert run("mask", root).code == 0
    done = run("stats", root, "--quantile", "0.95", "--method", "quantile_clipping_log1p")
    assert done.code == 0, done.err
    directory = Path(done.out.strip())
    assert directory == root / "imc/1_0mpp/standardization/quantile_clipping_log1p/uq_0.95_image"
    spec = "quantile_clipping_log1p/uq_0.95_image"
    dataset = MultiplexImagingDataset("c", "imc", path=root, standardization=spec)
    assert dataset.get_channel_names("t", "complete").tolist() == ["DNA", "CD3"]


def test_options_of_ingest(run: Any, slide: Path, tmp_path: Path) -> None:
    root = tmp_path / "c"
    base = ("ingest", slide, "--cohort", root, "--modality", "he")
    assert run(*base, "--tissue", "a", "--mpp", "0.25,0.5", "--resolution", "1.0").code == 0
    assert MultiscaleImage.open(root / "he/1_0mpp/images/a.ome.zarr").level_shape(0) == (
        3,
        154,
        271,
    )
    assert run(*base, "--tissue", "b", "--resolution", "0_5mpp", "--codec", "small").code == 0
    assert (root / "he/0_5mpp/images/b.ome.zarr").is_dir()
    done = run(*base, "--tissue", "c", "--resolution", "0.25")
    assert done.code == 2
    assert "--upsample" in done.err
    assert run(*base, "--tissue", "c", "--resolution", "0.25", "--upsample").code == 0
    done = run(*base, "--tissue", "b", "--resolution", "0.5")
    assert done.code == 1
    assert "--overwrite" in done.err
    assert run(*base, "--tissue", "b", "--resolution", "0.5", "--overwrite").code == 0
    done = run("mask", root)
    assert done.code == 2
    assert "--resolution" in done.err
    assert run("mask", root, "--resolution", "0.5").code == 0


def test_tissues_may_be_named_several_times(run: Any, cohort: Path, slide: Path) -> None:
    for name in ("u", "v"):
        options = ("--cohort", cohort, "--tissue", name, "--modality", "he", "--resolution", "0.5")
        assert run("ingest", slide, *options).code == 0
    done = run("mask", cohort, "--tissue", "t", "--tissue", "v")
    assert [line.partition(":")[0] for line in done.out.splitlines()] == ["t", "v"]
    done = run(
        "tile", cohort, "--size", "64", "--tissue", "v", "--method", "grid", "--stride", "32"
    )
    assert done.out.startswith("v: ")
    done = run("tile", cohort, "--size", "64")
    assert done.code == 1
    assert "'u' has no tissue mask" in done.err


def test_one_image_is_predicted_without_a_cohort(run: Any, slide: Path, tmp_path: Path) -> None:
    out = tmp_path / "heat.ome.zarr"
    done = run("predict", slide, "--out", out, "--tile-size", "256")
    assert (done.code, done.out) == (0, f"{out}\n"), done.err
    image = MultiscaleImage.open(out)
    assert image.level_shape(0)[-2:] == (613, 541)
    assert image.require_mpp().y == 0.5
    options = ["--tile-size", "256", "--overwrite", "--start-over", "--skip-empty"]
    assert run("predict", slide, "--out", out, "--blend", "linear", *options).code == 0
    record = MultiscaleImage.open(out).metadata["microtome"]["prediction"]
    assert record["blend"] == "linear"
    assert "skipped_tiles" in record
    done = run("predict", slide, "--out", out)
    assert done.code == 1
    assert str(out) in done.err
    assert run("predict", slide, "--out", out, "--tile-size", "256", "--overwrite").code == 0


NETWORK = """
import numpy as np

def same(batch):
    return np.asarray(batch, np.float32)

class Trained:
    standardization = "imagenet"
    def __call__(self, batch):
        return same(batch)
"""


def test_a_model_sees_what_it_was_trained_on(
    run: Any, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "networks.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    root, stored = tmp_path / "cohort", np.moveaxis(tifffile.imread(slide), -1, 0)
    place = ("--cohort", root, "--tissue", "t", "--modality", "he", "--resolution", "0.5")
    assert run("ingest", slide, *place).code == 0
    wanted = ["predict", "--tile-size", "256"]

    def made(*options: Any, of: Path = root) -> Any:
        done = run(*wanted, of, *options)
        assert done.code == 0, done.err
        return MultiscaleImage.open(done.out.strip()).level(0)[...]

    for source, more in ((root, ("--name", "n")), (slide, ("--out", tmp_path / "n.ome.zarr"))):
        options = ["--model", "networks:same", "--overwrite", *more]
        hibou = RgbStandardizer.preset("hibou")(stored)
        np.testing.assert_array_equal(
            made(*options, "--standardization", "hibou", of=source), hibou
        )
        green = made(*options, "--channel", "green", "--turns", "4", of=source)
        np.testing.assert_array_equal(green, stored[1:2])
        np.testing.assert_allclose(
            made(*options, "--blend", "linear", of=source), stored, rtol=1e-5
        )
        # What the model says of itself, unless something else is asked for.
        options[1] = "networks:Trained"
        imagenet = RgbStandardizer.preset("imagenet")(stored)
        np.testing.assert_array_equal(made(*options, of=source), imagenet)
        same = made(*options, "--standardization", "stored", of=source)
        np.testing.assert_array_equal(same, stored)
        done = run(*wanted, source, *options, "--standardization", "imagnet")
        assert done.code == 2
        assert "standardizations stored, imagenet" in done.err.replace("\n", " ")
    assert run("mask", root).code == 0
    options = ["--model", "networks:same", "--name", "m"]
    part = made(*options, "--tissue-masks")
    assert (part == stored).all(axis=0).any()
    done = run(*wanted, slide, "--out", tmp_path / "m.ome.zarr", "--tissue-masks")
    assert done.code == 2
    assert "--skip-empty" in done.err


OBJECTS = """
from scipy.ndimage import label
import numpy as np

def dark(batch):
    return np.stack([label(pixels[0] < 200)[0].astype(np.int32) for pixels in np.asarray(batch)])
"""


def test_objects_are_found_across_tiles(
    run: Any, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "objects.py").write_text(OBJECTS)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "labels.ome.zarr"
    wanted = ["predict", slide, "--model", "objects:dark", "--instances", "--tile-size", "256"]
    done = run(*wanted, "--out", out)
    assert (done.code, done.out) == (0, f"{out}\n"), done.err
    red = tifffile.imread(slide)[..., 0]
    found = MultiscaleImage.open(out).level(0)[...]
    np.testing.assert_array_equal(found > 0, red < 200)
    done = run(*wanted)
    assert done.code == 2
    assert "--out" in done.err


def test_an_image_becomes_an_ome_tiff(run: Any, slide: Path, tmp_path: Path) -> None:
    out = tmp_path / "slide.ome.tif"
    done = run("export", slide, out, "--codec", "zstd")
    assert (done.code, done.out) == (0, f"{out}\n"), done.err
    np.testing.assert_array_equal(tifffile.imread(out), tifffile.imread(slide))
    done = run("export", slide, out)
    assert done.code == 1
    assert str(out) in done.err


def test_a_cohort_is_packed_for_its_tiles(run: Any, cohort: Path, tmp_path: Path) -> None:
    assert run("mask", cohort).code == 0
    assert run("tile", cohort, "--size", "64").code == 0
    out = tmp_path / "packed"
    done = run("pack", cohort, out, "--size", "64")
    assert done.code == 0, done.err
    assert done.out.startswith("he t: chunks 3 x 64 x 64, ")
    place = "he/0_5mpp/images/t.ome.zarr"
    np.testing.assert_array_equal(
        MultiscaleImage.open(out / place).level(0)[...],
        MultiscaleImage.open(cohort / place).level(0)[...],
    )
    again = run("pack", cohort, out, "--size", "64")
    assert (again.code, again.out) == (0, done.out)
    assert f"{out} is there already" in again.err
    refused = run("pack", cohort, out, "--size", "64", "--codec", "small")
    assert refused.code == 1
    assert "other settings (codec: 'fast' then, 'small' now)" in refused.err


def test_a_cohort_is_packed_in_the_order_of_an_epoch(
    run: Any, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("mask", cohort)
    run("tile", cohort, "--size", "64")
    out = tmp_path / "packed"
    opened = []
    opens = TileTable.read
    monkeypatch.setattr(TileTable, "read", lambda *a, **k: opened.append(a) or opens(*a, **k))
    done = run("pack", cohort, out, "--size", "64", "--order", "random", "--seed", "3")
    assert done.code == 0, done.err
    assert len(opened) == 1
    before, after = (_tiles_of(root) for root in (cohort, out))
    rows = TileOrder(len(before), "random", seed=3, epoch=0).rows(0, len(before))
    for name in ("row", "col"):
        np.testing.assert_array_equal(after.column(name), before.column(name)[rows])


@pytest.mark.parametrize("option", ["--seed", "--epoch"])
def test_what_is_of_a_shuffled_epoch_is_refused_without_one(
    run: Any, cohort: Path, tmp_path: Path, option: str
) -> None:
    refused = run("pack", cohort, tmp_path / "packed", "--size", "64", option, "3")
    assert refused.code != 0
    assert "give --order random, or leave them out" in " ".join(refused.err.split())
    assert not (tmp_path / "packed").exists()


def _tiles_of(root: Path) -> TileTable:
    layout = CohortLayout.open(root)
    return open_tiles(layout, layout.resolution(None), "default", 64)


def test_a_bench_says_how_fast_tiles_load(run: Any, slide: Path) -> None:
    done = run("bench", slide, "--tile-size", "64", "--seconds", "0.2")
    assert done.code == 0, done.err
    assert "tiles/cpu-s" in done.out
    assert run("bench", slide, "--tile-size", "4096").code == 2


def test_a_bench_of_a_cohort_is_of_the_modality_that_is_asked_for(run: Any, cohort: Path) -> None:
    other = run("bench", cohort, "--modality", "mibi", "--size", "64")
    assert other.code != 0
    assert "has no images of 'mibi'; there are" in " ".join(other.err.split())
    named = run("bench", cohort, "--image", "one", "--size", "64")
    assert "is a cohort; choose by modality=" in " ".join(named.err.split())


MODEL = """
import torch

class Invert(torch.nn.Module):
    def forward(self, batch):
        return 255 - batch

model = Invert()
"""


def test_a_model_of_ones_own(
    run: Any, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "model_of_the_test.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    done = run("predict", cohort, "--model", "model_of_the_test:model", "--tile-size", "256")
    assert done.code == 0, done.err
    (written,) = done.out.splitlines()
    assert Path(written) == cohort / "predictions/0_5mpp/model_of_the_test.model/t.ome.zarr"
    found = MultiscaleImage.open(written).level(0)[...]
    stored = MultiscaleImage.open(cohort / "he/0_5mpp/images/t.ome.zarr").level(0)[...]
    np.testing.assert_array_equal(found, 255 - stored.astype(found.dtype))


def test_a_model_of_other_channels_is_told_without_a_traceback(
    run: Any, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    text = "import torch\nmodel = torch.nn.Conv2d(22, 1, 3, padding=1)\n"
    (tmp_path / "model_of_22.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    options = ("--model", "model_of_22:model", "--tile-size", "256")
    image = cohort / "he/0_5mpp/images/t.ome.zarr"
    for given in ((cohort,), (image, "--out", tmp_path / "p")):
        done = run("predict", *given, *options)
        assert (done.code, done.out) == (1, "")
        assert "Traceback" not in done.err
        (said,) = (line for line in done.err.splitlines() if line.startswith("error: "))
        assert "t.ome.zarr" in said
        assert "of 3 channels, (8, 3, 256, 256) uint8" in said
        assert "to have 22 channels, but got 3 channels instead" in said
        assert "--channel" in said
    assert not list((cohort / "predictions").rglob("*.zarr"))


@pytest.mark.slow
def test_the_demo_on_a_slide_of_ones_own(run: Any, slide: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = run("demo", slide, "-o", tmp_path / "out", "--size", "128")
    assert done.code == 0, done.err
    assert done.out == f"look at {tmp_path / 'out/report.html'}\n"
    assert (tmp_path / "out/report.html").stat().st_size > 50_000
    for step in range(1, 8):
        assert f"\n{step}. " in f"\n{done.err}"
    again = run("demo", slide, "-o", tmp_path / "out", "--size", "128")
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    "verb", [(), *[(verb,) for verb in VERBS]], ids=lambda v: "-".join(v) or "top"
)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(run: Any, verb: tuple[str, ...], flag: str) -> None:
    done = run(*verb, flag)
    assert (done.code, done.err) == (0, "")
    assert "Usage: microtome" in done.out
    if verb:
        assert verb[0] in done.out
    else:
        assert all(name in done.out for name in VERBS)


def test_version(run: Any) -> None:
    from importlib.metadata import version

    done = run("--version")
    assert (done.code, done.out.strip(), done.err) == (0, version("microtome"), "")


def test_nothing_asked_for_is_help(run: Any) -> None:
    done = run()
    assert done.code == 0
    assert "Usage" in done.out


def test_one_of_several_images_in_a_file(run: Any, shared_data: Path, tmp_path: Path) -> None:
    mcd = next((shared_data / "imc").rglob("*.mcd"))
    names = image_names(mcd)
    done = run("info", mcd)
    assert done.code == 0
    assert str(names[0]) in done.out
    assert run("info", mcd, "--image", names[0]).code == 0
    root = tmp_path / "cohort"
    options = ["--cohort", root, "--modality", "imc"]
    assert run("ingest", mcd, *options, "--tissue", "a", "--image", names[0]).code == 0
    table = {"tissue_id": ["b"], "path": [str(mcd)], "modality": ["imc"], "image": [names[1]]}
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    done = run("ingest", "--manifest", tmp_path / "rows.parquet", "--cohort", root)
    assert done.code == 0, done.err
    stored = [
        MultiscaleImage.open(root / f"imc/1_0mpp/images/{tissue}.ome.zarr").level(0)[...]
        for tissue in "ab"
    ]
    for name, pixels in zip(names, stored, strict=False):
        np.testing.assert_array_equal(pixels, open_image(mcd, image=name).level(0)[...])


@pytest.mark.parametrize("given", [("--image", "a"), ("--mpp", "0.5")])
def test_what_is_for_one_image_is_refused_of_a_cohort(
    run: Any, tmp_path: Path, given: tuple[str, ...]
) -> None:
    done = run("predict", tmp_path, *given)
    assert done.code == 2
    assert f"{given[0]} is for one image, with --out" in done.err.replace("\n", " ")


def test_every_verb_calls_a_tissue_and_the_side_of_a_tile_alike(run: Any) -> None:
    verbs = {
        "--tissue": [
            *("ingest", "mask", "tile", "predict", "export coco"),
            *("cohort add-cells", "cohort add-mask", "cohort align", "cohort add-tiles"),
        ],
        "--size": ["demo", "tile", "pack", "predict", "bench", "export parquet"],
        "--tile-size": ["demo", "tile", "pack", "predict", "bench", "export parquet"],
    }
    for option, known in verbs.items():
        for verb in known:
            shown = run(*verb.split(), "--help")
            assert shown.code == 0
            assert option in shown.out.split(), f"{verb} {option}"
