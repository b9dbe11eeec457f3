from skimage.data import immunohistochemistry

import microtome as mt
from microtome.prediction import load_model

slide = {"modality": "ihc_FHL2", "axes": "yxc", "mpp": 0.5}
place = {"cohort": "study", "tissue_id": "colon", "resolution": 0.5}
mt.ingest(immunohistochemistry(), **slide, **place)
mt.mask("study")
mt.tile("study", tile_size=128)

options = {"path": "study", "resolution": 0.5, "tile_size": 128}
tiles = mt.SingleIHCImagingDataset("study", "FHL2", **options)
for batch in mt.TileLoader(tiles, batch_size=8, seed=0):
    print(batch.data.shape, batch.additional_metadata[0]["tile_id"])

mt.predict_cohort(load_model("demo"), "study", name="demo")
mt.report("study", "report.html")
