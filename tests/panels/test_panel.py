"""The panel as a value and as a table, and the states of its channels."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from microtome.errors import FormatError, InvalidInputError, UnknownNameError
from microtome.panels import Channel, ChannelState, Panel, channel_states, read_panel

COLUMNS = {
    "channel_name": pa.string(),
    "index": pa.int64(),
    "uniprot_id": pa.string(),
    "qc_pass": pa.bool_(),
    "is_nuclear_marker": pa.bool_(),
}


def panel() -> Panel:
    return Panel(
        (
            Channel("CD3", "P07766", qc_pass=True, is_nuclear_marker=False, extra={"cycle": 1}),
            Channel("Collagen", "P02452; P02458", qc_pass=False, is_nuclear_marker=False),
            Channel("DNA", qc_pass=True, is_nuclear_marker=True, extra={"description": "Ir"}),
        )
    )


# ------------------------------------------------------------------ the value


def test_a_panel_is_a_value() -> None:
    one = panel()
    assert one == panel()
    assert hash(one) == hash(panel())
    assert pickle.loads(pickle.dumps(one)) == one
    assert one.names == ("CD3", "Collagen", "DNA")
    assert one["Collagen"].uniprot_id == "P02452;P02458"
    assert one["Collagen"].accessions == ("P02452", "P02458")
    assert one.index("DNA") == 2
    assert "DNA" in one
    assert "dna" not in one
    assert len(one) == len(list(one)) == 3
    assert one.select(["DNA", "CD3"]).names == ("DNA", "CD3")


def test_extra_columns_are_the_panel_s_own() -> None:
    mine = {"cycle": 1}
    channel = Channel("CD3", extra=mine)
    mine["cycle"] = 2
    assert channel.extra == {"cycle": 1}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Channel(""), "needs a name, got ''"),
        (lambda: Channel(" "), "needs a name, got ' '"),
        (lambda: Channel(7), "needs a name, got 7"),
        (lambda: Channel("CD3", "CD3E"), "channel 'CD3': .*CD3E"),
        (lambda: Channel("CD3", 7), "uniprot_id of channel 'CD3' must be text, got 7"),
        (lambda: Channel("CD3", qc_pass=1), "qc_pass of channel 'CD3' .* got 1"),
        (lambda: Channel("CD3", is_nuclear_marker="no"), "is_nuclear_marker .* got 'no'"),
        (lambda: Channel("CD3", extra={"index": 3}), "'index'.* are columns of their own"),
        (lambda: Panel(()), "at least one channel"),
        (lambda: Panel((Channel("a"), Channel("b"), Channel("a"))), r"\{'a': \[0, 2\]\}"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_nuclear_markers_become_one_protein() -> None:
    made = panel().replace_nuclear_uniprot_ids()
    assert [c.uniprot_id for c in made] == ["P07766", "P02452;P02458", "P68431"]
    assert made["DNA"].extra == panel()["DNA"].extra
    assert [c.uniprot_id for c in panel().replace_nuclear_uniprot_ids("P84243")][2] == "P84243"
    with pytest.raises(InvalidInputError, match=r"channel 'DNA': .*'H3'"):
        panel().replace_nuclear_uniprot_ids("H3")


def test_a_channel_that_is_not_there() -> None:
    with pytest.raises(UnknownNameError, match=r"no channel 'CD8' in the panel \['CD3'"):
        panel()["CD8"]


# ------------------------------------------------------------------ the table


def test_the_columns_of_a_cohort() -> None:
    table = panel().to_table()
    assert {name: table.schema.field(name).type for name in COLUMNS} == COLUMNS
    assert table.column_names[5:] == ["cycle", "description"]
    assert table.to_pylist()[2] == {
        "channel_name": "DNA",
        "index": 2,
        "uniprot_id": None,
        "qc_pass": True,
        "is_nuclear_marker": True,
        "cycle": None,
        "description": "Ir",
    }


def test_what_nobody_said_is_what_readers_take_it_for() -> None:
    (row,) = Panel((Channel("CD3"),)).to_table().to_pylist()
    assert (row["qc_pass"], row["is_nuclear_marker"]) == (True, False)


@given(
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=5).filter(str.strip),
            st.sampled_from([None, "P07766", "P02452;A0A023GPI8"]),
            st.booleans(),
            st.booleans(),
            st.none() | st.integers(0, 9),
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda row: row[0],
    )
)
def test_there_and_back(rows: list[Any]) -> None:
    made = Panel(tuple(Channel(n, u, q, k, {"cycle": c}) for n, u, q, k, c in rows))
    assert Panel.from_table(made.to_table()) == made


def test_a_panel_of_spora(tmp_path: Path) -> None:
    """Its file has no index and two columns more (reference/spora.md 1.5), and pandas wrote it."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "channel_name": ["CD3", "DNA1"],
            "qc_pass": [True, False],
            "uniprot_id": ["P07766", None],
            "is_nuclear_marker": [False, True],
            "description": ["T cells", None],
            "original_channel_name": ["CD3_1", "191Ir"],
        },
        index=[7, 3],
    )
    frame.to_parquet(tmp_path / "channels.parquet")
    found = read_panel(tmp_path / "channels.parquet")
    assert found == Panel(
        (
            Channel(
                "CD3",
                "P07766",
                qc_pass=True,
                is_nuclear_marker=False,
                extra={"description": "T cells", "original_channel_name": "CD3_1"},
            ),
            Channel(
                "DNA1",
                qc_pass=False,
                is_nuclear_marker=True,
                extra={"description": None, "original_channel_name": "191Ir"},
            ),
        )
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a"]}, "lacks the column 'channel_name'; it has"),
        ({"channel_name": ["a", "b", "a"]}, "row 3: channel 'a' is already in row 1"),
        ({"channel_name": ["a", None]}, "row 2: a channel needs a name, got None"),
        ({"channel_name": [1, 2]}, "row 1: a channel needs a name, got 1"),
        ({"channel_name": ["a"], "uniprot_id": ["CD3E"]}, "row 1: channel 'a': .*CD3E"),
        ({"channel_name": ["a"], "qc_pass": [1]}, "row 1: qc_pass of channel 'a'"),
        ({"channel_name": ["a", "b"], "index": [1, 0]}, "row 1: index is 1, but .* it is 0"),
        ({"channel_name": []}, "has no channel"),
    ],
)
def test_tables_that_are_refused(
    columns: dict[str, list[Any]], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "channels.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(FormatError, match=f"channels.parquet.*{message}"):
        read_panel(path)


def test_two_columns_of_one_name() -> None:
    table = pa.table([pa.array(["a"]), pa.array(["b"])], ["channel_name", "channel_name"])
    with pytest.raises(FormatError, match="columns of the same name"):
        Panel.from_table(table)


def test_an_extra_column_of_several_types() -> None:
    mixed = Panel((Channel("a", extra={"x": 1}), Channel("b", extra={"x": "one"})))
    with pytest.raises(InvalidInputError, match=r"column 'x' .* several types"):
        mixed.to_table()


# ------------------------------------------------------------------ states


def test_the_numbers_on_disk() -> None:
    assert {state.name: int(state) for state in ChannelState} == {
        "NOT_MEASURED": 0,
        "MEASURED": 1,
        "FAILED_QC": 2,
    }


@pytest.mark.parametrize(
    "measured",
    [
        ["CD3", "Collagen"],
        {"CD3", "Collagen"},
        {"CD3": True, "Collagen": True, "DNA": False},
        np.array([True, True, False]),
    ],
    ids=["names", "set", "row", "array"],
)
def test_states(measured: Any) -> None:
    states = channel_states(panel(), measured)
    assert states.dtype == np.uint8
    assert states.tolist() == [1, 2, 0]


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([True, False, None]), st.booleans()), min_size=1
    )
)
def test_states_are_the_table_of_truth(rows: list[tuple[bool, bool | None, bool]]) -> None:
    made = Panel(tuple(Channel(str(i), qc_pass=qc) for i, (_, qc, _) in enumerate(rows)))
    measured = {str(i): there for i, (there, _, _) in enumerate(rows)}
    in_tissue = {str(i): passed for i, (_, _, passed) in enumerate(rows)}
    expected = [
        0 if not there else 2 if (qc is False or not passed) else 1 for there, qc, passed in rows
    ]
    assert channel_states(made, measured, in_tissue).tolist() == expected
    array = np.array(list(in_tissue.values()))
    assert channel_states(made, measured, array).tolist() == expected


def test_a_tissue_s_qc_may_speak_of_some_channels() -> None:
    assert channel_states(panel(), ["CD3", "DNA"], {"DNA": False, "Collagen": True}).tolist() == [
        1,
        0,
        2,
    ]


@pytest.mark.parametrize(
    ("measured", "qc", "kind", "message"),
    [
        (["CD8"], None, UnknownNameError, "measured speaks of channels .'CD8'."),
        ({"CD3": True}, None, UnknownNameError, "says nothing of the channels .'Collagen', 'DNA'."),
        ("CD3", None, InvalidInputError, "names of channels, got the text 'CD3'"),
        (np.array([True]), None, InvalidInputError, r"3 booleans.*bool of shape \(1,\)"),
        (np.array([1, 0, 1]), None, InvalidInputError, "int64 of shape"),
        ({"CD3": 1, "Collagen": True, "DNA": True}, None, InvalidInputError, "True or False"),
        (["CD3"], {"CD8": True}, UnknownNameError, "qc_pass speaks of channels .'CD8'."),
        (["CD3"], {"CD3": None}, InvalidInputError, "True or False.*None"),
    ],
)
def test_states_that_nobody_may_say(measured: Any, qc: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        channel_states(panel(), measured, qc)
