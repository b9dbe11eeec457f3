"""Panels of other tools, in the formats that their documentation states, and real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from microtome.errors import FormatError, InvalidInputError, NotFoundError
from microtome.panels import Channel, Panel, PanelFormat, read_name_table, read_panel


def written(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


# ------------------------------------------------------------------ steinbock


def test_the_steinbock_panel_of_real_slides(shared_data: Path) -> None:
    panel = read_panel(shared_data / "imc/steinbock_panel.csv")
    assert [(c.name, c.extra["tag"], c.qc_pass, c.is_nuclear_marker) for c in panel] == [
        ("Ag107", "Ag107", True, False),
        ("Cytokeratin 5", "Pr141", True, False),
        ("Laminin", "Sm147", True, False),
        ("YBX1", "Eu153", True, False),
        ("H3K27Ac", "Yb172", True, True),
    ]
    assert panel["Laminin"].extra["Tube Number"] == "625.0"
    assert all(channel.uniprot_id is None for channel in panel)


def test_the_raw_panel_of_the_same_slides_says_the_same(shared_data: Path) -> None:
    raw = read_panel(shared_data / "imc/panel.csv")
    steinbock = read_panel(shared_data / "imc/steinbock_panel.csv")
    assert {c.extra["tag"]: (c.name, c.qc_pass, c.is_nuclear_marker) for c in raw} == {
        c.extra["tag"]: (c.name, c.qc_pass, c.is_nuclear_marker) for c in steinbock
    }
    assert raw.names == ("Laminin", "H3K27Ac", "Cytokeratin 5", "YBX1", "Ag107")


def test_channels_that_steinbock_does_not_keep_stay(tmp_path: Path) -> None:
    text = "channel,name,keep,ilastik,deepcell\nIr191,DNA1,1,1,1\nXe131,,0,,\n161Dy,CD20,1,,2\n"
    panel = read_panel(written(tmp_path, "panel.csv", text))
    assert panel.names == ("DNA1", "Xe131", "CD20")
    assert [channel.qc_pass for channel in panel] == [True, False, True]
    assert [channel.extra["keep"] for channel in panel] == [True, False, True]
    assert [channel.is_nuclear_marker for channel in panel] == [True, False, False]
    assert panel["CD20"].extra["tag"] == "Dy161"


def test_what_steinbock_does_not_say_is_not_said(tmp_path: Path) -> None:
    (channel,) = read_panel(written(tmp_path, "panel.csv", "channel,name\nIr191,DNA1\n"))
    assert channel == Channel("DNA1", extra={"tag": "Ir191"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("channel,name\nIr191,\n", "line 2: name is empty"),
        ("channel,name,keep\nIr191,,1\n", "line 2: name is empty"),
        ("channel,name\n,DNA\n", "line 2: channel is empty"),
        ("channel,name,keep\nIr191,DNA,maybe\n", "line 2: keep must be 1, 0.*'maybe'"),
        ("channel,name,keep\nIr191,DNA,2\n", "line 2: keep must be 1, 0.*'2'"),
        ("channel,name,deepcell\nIr191,DNA,x\n", "line 2: deepcell must be a number"),
        ("channel,name\nIr191,DNA\nIr193,DNA\n", "row 2: channel 'DNA' is already in row 1"),
        ("channel,name\nIr191,DNA,1\n", "line 2: 3 cells, but there are 2 columns"),
        ("channel,name\n\nIr191\n", "line 3: 1 cells"),
        ("channel,name,name\nIr191,DNA,DNA\n", "columns of the same name"),
        ("channel,name\n", "has no channel"),
        ("\n \n", "is empty"),
    ],
)
def test_panels_of_steinbock_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"panel.csv.*{message}"):
        read_panel(written(tmp_path, "panel.csv", text))


def test_columns_of_ours_in_another_tool_s_file(tmp_path: Path) -> None:
    text = (
        "channel,name,keep,deepcell,uniprot_id,qc_pass,is_nuclear_marker,channel_name\n"
        "Ir191,DNA1,1,2,,true,true,iridium\n"
        "Dy161,CD20,1,,P11836,false,,\n"
        "Er170,CD3,0,,P07766,true,,\n"
    )
    panel = read_panel(written(tmp_path, "panel.csv", text), "steinbock")
    assert [(c.name, c.uniprot_id, c.qc_pass, c.is_nuclear_marker) for c in panel] == [
        ("DNA1", None, True, True),
        ("CD20", "P11836", False, False),
        ("CD3", "P07766", False, False),
    ]
    assert panel["DNA1"].extra["original_channel_name"] == "iridium"
    assert "original_channel_name" not in panel["CD20"].extra


# ------------------------------------------------------------------ MCMICRO


def test_markers_of_mcmicro_and_its_background_subtraction(tmp_path: Path) -> None:
    text = (
        "channel_number,cycle_number,marker_name,Filter,background,exposure,remove\n"
        "1,1,DNA_1,DAPI,,100,\n"
        "2,1,AF,Cy3,,250.5,TRUE\n"
        "3,2,CD3,Cy3,AF,500,FALSE\n"
    )
    panel = read_panel(written(tmp_path, "markers.csv", text))
    assert panel == Panel(
        (
            Channel(
                "DNA_1",
                extra={
                    "tag": "DAPI",
                    "cycle": "1",
                    "exposure": 100.0,
                    "background": None,
                    "remove": None,
                },
            ),
            Channel(
                "AF",
                qc_pass=False,
                extra={
                    "tag": "Cy3",
                    "cycle": "1",
                    "exposure": 250.5,
                    "background": None,
                    "remove": "TRUE",
                },
            ),
            Channel(
                "CD3",
                qc_pass=True,
                extra={
                    "tag": "Cy3",
                    "cycle": "2",
                    "exposure": 500.0,
                    "background": "AF",
                    "remove": "FALSE",
                },
            ),
        )
    )


@pytest.mark.parametrize("head", ["cycle,marker_name", "cycle_number,marker_name"])
def test_the_least_that_mcmicro_asks_for(head: str, tmp_path: Path) -> None:
    panel = read_panel(written(tmp_path, "markers.csv", f"{head}\n1,DNA_1\n2,DNA_2\n"))
    assert [(c.name, c.extra, c.qc_pass) for c in panel] == [
        ("DNA_1", {"cycle": "1"}, None),
        ("DNA_2", {"cycle": "2"}, None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("channel_number,marker_name\n2,a\n1,b\n", "line 3: channel_number 1 does not follow 2"),
        ("channel_number,marker_name\n1,a\n1,b\n", "line 3: channel_number 1 does not follow 1"),
        ("channel_number,marker_name\none,a\n", "line 2: channel_number must be a number"),
        ("marker_name,exposure\na,long\n", "line 2: exposure must be a number"),
        ("marker_name,remove\na,maybe\n", "line 2: remove must be"),
        ("cycle,marker_name\n1,\n", "row 1: a channel needs a name, got None"),
    ],
)
def test_markers_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"markers.csv.*{message}"):
        read_panel(written(tmp_path, "markers.csv", text))


# ------------------------------------------------------------------ tables of ours


OURS = "channel_name{0}uniprot_id{0}qc_pass{0}is_nuclear_marker{0}lot\nCD3{0}P07766{0}1{0}False{0}7\nDNA{0}{0}no{0}true{0}\n"


@pytest.mark.parametrize("separator", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_delimited_tables(separator: str, encoding: str, tmp_path: Path) -> None:
    path = written(tmp_path, "panel.txt", OURS.format(separator), encoding)
    assert read_panel(path) == Panel(
        (
            Channel("CD3", "P07766", qc_pass=True, is_nuclear_marker=False, extra={"lot": "7"}),
            Channel("DNA", qc_pass=False, is_nuclear_marker=True, extra={"lot": None}),
        )
    )


def test_a_parquet_table_and_its_csv_are_one_panel(tmp_path: Path) -> None:
    made = Panel((Channel("CD3", "P07766", True, False), Channel("DNA", None, False, True)))
    pq.write_table(made.to_table(), tmp_path / "panel.parquet")
    lines = ["channel_name,index,uniprot_id,qc_pass,is_nuclear_marker"]
    lines += [
        ",".join("" if v is None else str(v) for v in r.values())
        for r in made.to_table().to_pylist()
    ]
    csv = written(tmp_path, "panel.csv", "\r\n".join(lines) + "\r\n")
    assert read_panel(tmp_path / "panel.parquet") == read_panel(csv) == made


def test_cells_in_quotes(tmp_path: Path) -> None:
    text = 'channel_name,uniprot_id,note\n"CD3, epsilon","P07766,P04234","two\nlines"\nDNA,,\n'
    panel = read_panel(written(tmp_path, "panel.csv", text))
    assert panel.names == ("CD3, epsilon", "DNA")
    assert panel.channels[0].accessions == ("P07766", "P04234")
    assert panel.channels[0].extra == {"note": "two\nlines"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("channel_name,uniprot_id\nCD3,CD3E\n", "row 1: channel 'CD3': .*'CD3E'"),
        ("channel_name,qc_pass\nCD3,2\n", "line 2: qc_pass must be"),
        ("channel_name,index\nCD3,1\n", "row 1: index is 1, but .* it is 0"),
        ("channel_name,index\nCD3,first\n", "line 2: index must be a number"),
        ('channel_name\n"CD3\n', "line 2: "),
        ("marker,target\n1,2\n", "no panel that is known; a panel has channel_name"),
        ("channel_name,marker_name\nCD3,CD3\n", "table or mcmicro"),
    ],
)
def test_tables_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"panel.csv.*{message}"):
        read_panel(written(tmp_path, "panel.csv", text))


def test_a_cell_with_what_only_unicode_takes_for_the_end_of_a_line(tmp_path: Path) -> None:
    text = "channel_name,note\nCD3,a\u2028b\x0bc\x85d\nDNA,\n"
    panel = read_panel(written(tmp_path, "panel.csv", text))
    assert [channel.extra["note"] for channel in panel] == ["a\u2028b\x0bc\x85d", None]


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = written(tmp_path, "panel.csv", "channel_name\nβ-catenin\n", "iso8859-7")
    with pytest.raises(FormatError, match=r"panel.csv is no UTF-8 text"):
        read_panel(path)


def test_a_format_that_is_named_decides(tmp_path: Path) -> None:
    path = written(tmp_path, "panel.csv", "channel_name,marker_name\nCD3,CD4\n")
    assert read_panel(path, "table").names == ("CD3",)
    assert read_panel(path, format="mcmicro").names == ("CD4",)
    with pytest.raises(FormatError, match=r"is no steinbock panel: it lacks \['channel', 'name'\]"):
        read_panel(path, "steinbock")
    wrong: Any = "qupath"
    with pytest.raises(InvalidInputError, match="format must be one of"):
        read_panel(path, wrong)


@pytest.mark.parametrize("name", ["no.csv", "no.parquet", "no.ome.xml", "no.tif", ""])
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"does not exist|is no file"):
        read_panel(tmp_path / name)


def test_parquet_that_is_none(tmp_path: Path) -> None:
    path = written(tmp_path, "panel.parquet", "channel_name\nCD3\n")
    with pytest.raises(FormatError, match="not a parquet file"):
        read_panel(path)
    pq.write_table(pa.table({"channel_name": ["a"]}), path)
    with pytest.raises(InvalidInputError, match="which mcmicro does not write"):
        read_panel(path, "mcmicro")


# ------------------------------------------------------------------ OME-XML

OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
  <Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" SizeC="3" SizeX="1" SizeY="1"
      SizeZ="1" SizeT="1" Type="uint16">
    <Channel ID="Channel:0:0" Name="CD20" Fluor="161Dy"/>
    <Channel ID="Channel:0:1" Name="DNA" Fluor="DAPI" ExcitationWavelength="353.0"/>
    <Channel ID="Channel:0:2" Fluor="Cy3"/>
    <Plane TheC="1" TheZ="0" TheT="0" ExposureTime="30" ExposureTimeUnit="ms"/>
    <Plane TheC="2" TheZ="0" TheT="0" ExposureTime="0.25"/>
    <Plane TheC="2" TheZ="1" TheT="0" ExposureTime="9"/>
  </Pixels></Image>
</OME>
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("name", ["panel.ome.xml", "panel.xml", "panel.ome"])
def test_a_file_of_ome_xml(name: str, encoding: str, tmp_path: Path) -> None:
    path = written(tmp_path, name, OME.replace("UTF-8", encoding), encoding)
    assert read_panel(path) == Panel(
        (
            Channel("CD20", extra={"tag": "Dy161"}),
            Channel(
                "DNA",
                extra={
                    "tag": "DAPI",
                    "excitation_wavelength": "353.0",
                    "exposure": 30.0,
                    "exposure_unit": "ms",
                },
            ),
            Channel("Cy3", extra={"tag": "Cy3", "exposure": 0.25, "exposure_unit": "s"}),
        )
    )


def test_an_ome_tiff_of_another_writer(tmp_path: Path) -> None:
    path = tmp_path / "image.ome.tif"
    tifffile.imwrite(
        path,
        np.zeros((3, 8, 8), np.uint16),
        metadata={
            "axes": "CYX",
            "Channel": {"Name": ["β-catenin", "CD3", "DNA"], "Fluor": ["Cy5", "Cy3", "DAPI"]},
        },
    )
    panel = read_panel(path)
    assert [(c.name, c.extra) for c in panel] == [
        ("β-catenin", {"tag": "Cy5"}),
        ("CD3", {"tag": "Cy3"}),
        ("DNA", {"tag": "DAPI"}),
    ]


def test_ome_xml_of_its_own_library(tmp_path: Path) -> None:
    ome = pytest.importorskip("ome_types")
    channels = [
        ome.model.Channel(name="CD20", fluor="Cy5", emission_wavelength=670.0),
        ome.model.Channel(name="DNA", fluor="Ir191"),
    ]
    pixels = ome.model.Pixels(
        dimension_order="XYCZT",
        type="uint16",
        size_x=1,
        size_y=1,
        size_c=2,
        size_z=1,
        size_t=1,
        channels=channels,
        planes=[ome.model.Plane(the_c=0, the_z=0, the_t=0, exposure_time=0.5)],
        metadata_only=True,
    )
    text = ome.OME(images=[ome.model.Image(pixels=pixels)]).to_xml()
    assert read_panel(written(tmp_path, "panel.ome.xml", text)) == Panel(
        (
            Channel(
                "CD20",
                extra={
                    "tag": "Cy5",
                    "emission_wavelength": "670.0",
                    "exposure": 0.5,
                    "exposure_unit": "s",
                },
            ),
            Channel("DNA", extra={"tag": "Ir191"}),
        )
    )


def test_a_tiff_without_ome_xml(shared_data: Path) -> None:
    with pytest.raises(FormatError, match=r"vectra.qptiff is a TIFF without OME-XML; .*from_names"):
        read_panel(shared_data / "wsi/vectra.qptiff", "ome_xml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<OME><Image>", "cannot be read"),
        ("", "cannot be read"),
        ("<OME/>", "has no OME-XML image"),
        (OME.replace('Fluor="Cy3"', ""), r"channel 2 \(Channel:0:2\) has neither Name nor Fluor"),
        (OME.replace('Name="DNA"', 'Name="CD20"'), "row 2: channel 'CD20' is already in row 1"),
        (OME.replace('"0.25"', '"long"'), "a Plane of its OME-XML has wrong numbers"),
        (
            OME.replace("</OME>", "<Image><Pixels><Channel Name='CD8'/></Pixels></Image></OME>"),
            r"image 0 has \['CD20', 'DNA', 'Cy3'\], image 1 has \['CD8'\]",
        ),
        (
            '<!DOCTYPE o [<!ENTITY a "CD3">]><OME><Image><Pixels><Channel Name="&a;"/></Pixels></Image></OME>',
            "cannot be read: .*Entit",
        ),
    ],
    ids=["cut", "empty", "no-image", "no-name", "twice", "numbers", "differ", "entity"],
)
def test_ome_xml_that_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"panel.ome.xml.*{message}"):
        read_panel(written(tmp_path, "panel.ome.xml", text))


def test_a_damaged_ome_tiff(tmp_path: Path) -> None:
    path = tmp_path / "image.ome.tif"
    path.write_bytes(b"II*\0\xff\xff\xff")
    with pytest.raises(FormatError, match="cannot be read"):
        read_panel(path)


# ------------------------------------------------------------------ tables of names


def test_a_table_of_common_names(tmp_path: Path) -> None:
    text = "cohort,channel_name,common_name,note\na,CD3e,CD3,\nb,CD-3,CD3,x\nb,blank,,\n"
    expected = {"a": {"CD3e": "CD3"}, "b": {"CD-3": "CD3", "blank": ""}}
    assert read_name_table(written(tmp_path, "names.csv", text)) == expected
    table = pa.table(
        {
            "cohort": ["a", "b", "b"],
            "channel_name": ["CD3e", "CD-3", "blank"],
            "common_name": ["CD3", "CD3", None],
        }
    )
    pq.write_table(table, tmp_path / "names.parquet")
    assert read_name_table(tmp_path / "names.parquet") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cohort,channel_name\na,b\n", r"lacks the columns \['common_name'\]"),
        ("cohort,channel_name,common_name\n,b,c\n", "row 2: cohort and channel_name must not be"),
        (
            "cohort,channel_name,common_name\na,b,c\na,b,d\n",
            "row 3: channel 'b' of 'a' is .* twice",
        ),
    ],
)
def test_tables_of_names_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=message):
        read_name_table(written(tmp_path, "names.csv", text))


def test_every_format_has_a_test() -> None:
    formats: tuple[PanelFormat, ...] = ("steinbock", "imc_pipeline", "mcmicro", "ome_xml", "table")
    assert PanelFormat.__args__ == formats  # type: ignore[attr-defined]
