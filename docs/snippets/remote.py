# A server for a bucket, on this machine, so that what the page shows runs.
import os
from pathlib import Path

import boto3
import numpy as np
from moto.server import ThreadedMotoServer

import microtome as mt

pixels = np.full((3, 512, 512), 240, np.uint8)
pixels[:, 32:480, 32:480] = np.array([150, 60, 140])[:, None, None]
mt.ingest(
    pixels, axes="cyx", mpp=1.0, cohort="study", tissue_id="t1", modality="he"
)
mt.mask("study")
mt.tile("study", tile_size=224)
os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
client = boto3.client("s3", region_name="eu-central-1")
client.create_bucket(
    Bucket="bucket",
    CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
)
for file in Path("study").rglob("*"):
    if file.is_file():
        body, key = file.read_bytes(), f"cohorts/{file}"
        client.put_object(Bucket="bucket", Key=key, Body=body, ACL="public-read")

# --8<-- [start:open]
import microtome as mt

options = mt.StorageOptions(region="eu-central-1", credentials="anonymous")
he = mt.HEImagingDataset(
    "study",
    path="s3://bucket/cohorts/study",
    tile_size=224,
    storage_options=options,
)
for batch in mt.TileLoader(he, batch_size=4, order="blocked", seed=0):
    print(batch.data.shape)
# --8<-- [end:open]
server.stop()
