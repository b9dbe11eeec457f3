"""Channels of several cohorts in one order: what matches, what does not, and what nobody may choose."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from microtome import open_image
from microtome.errors import InvalidInputError, NotFoundError, UnknownNameError
from microtome.panels import Channel, ChannelAlignment, Panel, align_channels, name_key, read_panel

COLLAGEN, FIBRONECTIN, CD3, CD44 = "P02452", "P02751", "P07766", "P16070"


def panel(**channels: str | None) -> Panel:
    return Panel(tuple(Channel(name, accession) for name, accession in channels.items()))


def named(*names: str) -> Panel:
    return Panel(tuple(Channel(name) for name in names))


def matches(made: ChannelAlignment) -> list[tuple[str | None, ...]]:
    """For each place the channel of each cohort."""
    cohorts = list(made.index)
    return [
        tuple(
            made.panels[cohort][int(made.index[cohort][place])]
            if made.index[cohort][place] >= 0
            else None
            for cohort in cohorts
        )
        for place in range(len(made))
    ]


def status(made: ChannelAlignment) -> dict[tuple[str, str], str]:
    return {(row.cohort, row.channel): row.status for row in made.report if row.channel}


def why(made: ChannelAlignment, cohort: str, channel: str) -> str:
    (row,) = [r for r in made.report if (r.cohort, r.channel) == (cohort, channel)]
    return row.why


def is_sound(made: ChannelAlignment, panels: Mapping[str, Panel]) -> None:
    """What holds for every alignment, whatever was matched."""
    assert len(set(made.names)) == len(made.names) == len(made.uniprot_ids)
    assert list(made.index) == list(panels)
    for cohort, own in panels.items():
        index = made.index[cohort]
        assert index.dtype == np.int64
        assert index.shape == (len(made),)
        used = index[index >= 0]
        assert len(set(used.tolist())) == len(used)
        assert ((index >= -1) & (index < len(own))).all()
        # Every channel is told of once, and a place that is told is the place that it has.
        rows = [row for row in made.report if row.cohort == cohort]
        assert [row.channel for row in rows if row.channel] == list(own.names)
        for row in rows:
            if row.channel and row.aligned:
                assert index[made.names.index(row.aligned)] == own.index(row.channel)
        told = {row.aligned for row in rows if row.channel and row.aligned}
        empty = {row.aligned for row in rows if row.status == "missing"}
        assert told.isdisjoint(empty)
        assert told | empty == set(made.names)
        assert all(row.why for row in rows)


# ------------------------------------------------------------------ by accession


IMC = panel(CD3=CD3, DNA=None, ECad="P12830", CD44=CD44)
MIBI = panel(CD20="P11836", Ecadherin="P12830", CD3e=CD3)


def test_a_union_by_accession() -> None:
    panels = {"imc": IMC, "mibi": MIBI}
    made = align_channels(panels)
    is_sound(made, panels)
    assert made.names == ("CD3", "ECad", "CD44", "CD20")
    assert made.uniprot_ids == (CD3, "P12830", CD44, "P11836")
    assert {name: index.tolist() for name, index in made.index.items()} == {
        "imc": [0, 2, 3, -1],
        "mibi": [2, 1, -1, 0],
    }
    assert made.present("mibi").tolist() == [True, True, False, True]
    assert status(made) == {
        ("imc", "CD3"): "matched",
        ("imc", "DNA"): "left out",
        ("imc", "ECad"): "matched",
        ("imc", "CD44"): "alone",
        ("mibi", "CD20"): "alone",
        ("mibi", "Ecadherin"): "matched",
        ("mibi", "CD3e"): "matched",
    }
    assert "no UniProt accession" in why(made, "imc", "DNA")


def test_an_intersection_by_accession() -> None:
    panels = {"mibi": MIBI, "imc": IMC}
    made = align_channels(panels, how="intersection")
    is_sound(made, panels)
    assert matches(made) == [("Ecadherin", "ECad"), ("CD3e", "CD3")]
    assert why(made, "imc", "CD44") == "['mibi'] have none like it"
    assert status(made)["mibi", "CD20"] == "left out"


def test_one_cohort_is_aligned_with_itself() -> None:
    made = align_channels({"imc": IMC}, how="intersection")
    assert made.names == ("CD3", "ECad", "CD44")
    assert status(made)["imc", "CD3"] == "alone"


def test_a_reference_panel() -> None:
    reference = panel(CD20="P11836", CD3=CD3, CD8="P01732")
    panels = {"imc": IMC, "mibi": MIBI}
    made = align_channels(panels, how=reference)
    is_sound(made, panels)
    assert made.names == ("CD20", "CD3", "CD8")
    assert matches(made) == [(None, "CD20"), ("CD3", "CD3e"), (None, None)]
    assert status(made)["imc", "ECad"] == "left out"
    assert why(made, "imc", "ECad") == "the reference has none like it"
    assert status(made)["mibi", "CD20"] == "matched"


def test_a_list_of_accessions_is_a_reference() -> None:
    made = align_channels({"imc": IMC}, how=[CD44, CD3])
    assert made.names == (CD44, CD3)
    assert matches(made) == [("CD44",), ("CD3",)]


def test_isoforms() -> None:
    panels = {"a": panel(CD44=CD44), "b": panel(CD44v6=f"{CD44}-2"), "c": panel(CD44s=f"{CD44}-12")}
    exact = align_channels(panels)
    assert matches(exact) == [("CD44", None, None), (None, "CD44v6", None), (None, None, "CD44s")]
    ignored = align_channels(panels, isoforms="ignore")
    is_sound(ignored, panels)
    assert matches(ignored) == [("CD44", "CD44v6", "CD44s")]


def test_isoforms_of_one_cohort_become_one_and_so_doubtful() -> None:
    panels = {"a": panel(CD44=CD44, CD44v6=f"{CD44}-2"), "b": panel(CD44=CD44)}
    assert matches(align_channels(panels)) == [("CD44", "CD44"), ("CD44v6", None)]
    with pytest.raises(InvalidInputError, match=r"CD44 -> -: ambiguous, \['CD44v6'\] of the same"):
        align_channels(panels, isoforms="ignore")


# ------------------------------------------------------------------ several accessions


def both(name: str = "ColFN") -> Panel:
    return panel(**{name: f"{COLLAGEN};{FIBRONECTIN}"})


def test_a_tag_of_two_proteins_matches_the_one_that_it_overlaps() -> None:
    panels = {"a": both(), "b": panel(Col=COLLAGEN), "c": panel(Col1=COLLAGEN)}
    for order in (["a", "b", "c"], ["b", "a", "c"], ["c", "b", "a"]):
        some = {name: panels[name] for name in order}
        made = align_channels(some)
        is_sound(made, some)
        assert len(made) == 1
        assert status(made) == {
            ("a", "ColFN"): "matched",
            ("b", "Col"): "matched",
            ("c", "Col1"): "matched",
        }
        assert why(made, "a", "ColFN") == f"accession {COLLAGEN}"


def test_the_same_two_proteins_in_another_order() -> None:
    made = align_channels({"a": both(), "b": panel(FNCol=f"{FIBRONECTIN}, {COLLAGEN}")})
    assert matches(made) == [("ColFN", "FNCol")]


@pytest.mark.parametrize(
    "others",
    [
        {"b": panel(Col=COLLAGEN, FN=FIBRONECTIN)},
        {"b": panel(Col=COLLAGEN), "c": panel(FN=FIBRONECTIN)},
        {"b": panel(Col=COLLAGEN), "c": panel(ColX=f"{COLLAGEN};{CD3}")},
    ],
    ids=["one-cohort", "two-cohorts", "chain"],
)
def test_a_tag_that_overlaps_several_matches_none(others: dict[str, Panel]) -> None:
    panels = {"a": both(), **others}
    with pytest.raises(InvalidInputError, match="could be matched in several ways: a: ColFN"):
        align_channels(panels)
    made = align_channels(panels, ambiguous="report")
    is_sound(made, panels)
    assert len(made) == 3
    assert all(sum(c is not None for c in place) == 1 for place in matches(made))
    assert "a" in {row.cohort for row in made.ambiguous}
    assert "which are not the same" in why(made, "a", "ColFN")


def test_a_choice_says_which() -> None:
    panels = {"a": both(), "b": panel(Col=COLLAGEN, FN=FIBRONECTIN)}
    made = align_channels(panels, choose={"a": {"ColFN": "FN"}})
    is_sound(made, panels)
    assert matches(made) == [(None, "Col"), ("ColFN", "FN")]
    assert why(made, "a", "ColFN") == "as chosen"
    left = align_channels(panels, choose={"a": {"ColFN": None}})
    is_sound(left, panels)
    assert matches(left) == [(None, "Col"), (None, "FN")]
    assert status(left)["a", "ColFN"] == "left out"


def test_two_channels_of_a_panel_are_two_though_they_overlap() -> None:
    panels = {"a": panel(ColFN=f"{COLLAGEN};{FIBRONECTIN}", Col=COLLAGEN), "b": panel(C=COLLAGEN)}
    made = align_channels(panels)
    is_sound(made, panels)
    assert matches(made) == [("ColFN", None), ("Col", "C")]
    assert made.ambiguous == ()


def test_two_channels_that_would_have_one_place() -> None:
    panels = {"a": panel(DNA1="P68431", DNA2="P68431", CD3=CD3), "b": panel(H3="P68431")}
    with pytest.raises(InvalidInputError, match=r"2 channels could .*choose=") as told:
        align_channels(panels)
    assert "a: DNA1 -> -: ambiguous, ['DNA2'] of the same cohort" in str(told.value)
    made = align_channels(panels, ambiguous="report")
    is_sound(made, panels)
    assert matches(made) == [(None, "H3"), ("CD3", None)]
    # The place is named by the first that could have it, but who has it is not said.
    assert made.names == ("DNA1", "CD3")
    chosen = align_channels(panels, choose={"a": {"DNA2": None}})
    is_sound(chosen, panels)
    assert matches(chosen) == [("DNA1", "H3"), ("CD3", None)]
    pinned = align_channels(panels, choose={"a": {"DNA2": "DNA1"}})
    assert matches(pinned) == [("DNA2", "H3"), ("CD3", None)]
    assert why(pinned, "a", "DNA1") == "'DNA2' was chosen"


def test_a_place_that_nobody_fills_is_none() -> None:
    panels = {"a": panel(DNA1="P68431", DNA2="P68431"), "b": panel(CD3=CD3)}
    made = align_channels(panels, ambiguous="report")
    is_sound(made, panels)
    assert made.names == ("CD3",)


@pytest.mark.parametrize("how", ["union", "intersection"])
def test_one_name_for_two_proteins(how: Any) -> None:
    panels = {"a": panel(CD3="P07766"), "b": panel(CD3="P04234")}
    made = align_channels(panels, how=how)
    is_sound(made, panels)
    assert made.names == (("CD3", "CD3 (P04234)") if how == "union" else ())


# ------------------------------------------------------------------ references


def test_another_cohort_changes_nothing_for_the_first() -> None:
    reference = panel(Col=COLLAGEN, CD3=CD3)
    alone = align_channels({"a": both()}, how=reference)
    assert matches(alone) == [("ColFN",), (None,)]
    more = align_channels({"b": panel(FN=FIBRONECTIN), "a": both()}, how=reference)
    assert more.index["a"].tolist() == alone.index["a"].tolist()


def test_two_that_overlap_one_of_the_reference() -> None:
    panels = {"a": panel(ColFN=f"{COLLAGEN};{FIBRONECTIN}", ColX=f"{COLLAGEN};{CD3}")}
    reference = panel(Col=COLLAGEN)
    with pytest.raises(
        InvalidInputError, match="a: ColFN -> -: ambiguous, it may be Col of the ref"
    ):
        align_channels(panels, how=reference)
    made = align_channels(panels, how=reference, ambiguous="report")
    is_sound(made, panels)
    assert matches(made) == [(None,)]
    assert set(status(made).values()) == {"ambiguous"}
    chosen = align_channels(panels, how=reference, choose={"a": {"ColX": "Col"}})
    assert matches(chosen) == [("ColX",)]
    # Once one is decided, the other has only that place to go to, which is taken.
    assert status(chosen)["a", "ColFN"] == "left out"


@pytest.mark.parametrize(
    ("how", "by", "message"),
    [
        (
            panel(CD3=CD3, CD3e=CD3),
            "uniprot",
            "'CD3' and 'CD3e' of the reference have the same acc",
        ),
        (named("CD3", "cd-3"), "name", "'CD3' and 'cd-3' of the reference have the same name cd3"),
        (panel(CD3=CD3, DNA=None), "uniprot", "'DNA' of the reference has no UniProt accession"),
        (["CD3"], "uniprot", r"how=\['CD3'\] are no accessions"),
        ([], "name", "at least one channel"),
        ("onion", "name", "how must be 'union', 'intersection', a panel .* got 'onion'"),
    ],
)
def test_references_that_are_refused(how: Any, by: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        align_channels({"imc": IMC}, how=how, by=by)


# ------------------------------------------------------------------ by name


def test_names_that_differ_in_spelling() -> None:
    panels = {
        "a": named("CD3", "β-Catenin", "HLA-DR", "Ki67"),
        "b": named("hla dr", "Beta_Catenin", "cd-3"),
    }
    made = align_channels(panels, by="name")
    is_sound(made, panels)
    assert matches(made) == [
        ("CD3", "cd-3"),
        ("β-Catenin", "Beta_Catenin"),
        ("HLA-DR", "hla dr"),
        ("Ki67", None),
    ]


def test_a_tag_beside_the_marker_is_not_its_name() -> None:
    panels = {
        "mibi": named("CD20 (164)", "ECadherin (150)"),
        "imc": named("Dy161Di(CD20)", "161Dy_E-cadherin"),
        "codex": named("Opal 520 CD20"),
    }
    made = align_channels(panels, by="name")
    is_sound(made, panels)
    assert matches(made) == [
        ("CD20 (164)", "Dy161Di(CD20)", "Opal 520 CD20"),
        ("ECadherin (150)", "161Dy_E-cadherin", None),
    ]


def test_a_marker_on_two_tags_is_known_with_its_tag() -> None:
    panels = {"a": named("DNA (191Ir)", "DNA (193Ir)"), "b": named("dna (193Ir)")}
    made = align_channels(panels, by="name")
    is_sound(made, panels)
    assert matches(made) == [("DNA (191Ir)", None), ("DNA (193Ir)", "dna (193Ir)")]
    # Plain DNA may be either, and so is neither, until one of them is out of the way.
    panels["b"] = named("DNA")
    assert matches(align_channels(panels, by="name"))[2] == (None, "DNA")
    chosen = align_channels(panels, by="name", choose={"a": {"DNA (191Ir)": None}})
    assert matches(chosen) == [("DNA (193Ir)", "DNA")]
    reference = named("DNA (193Ir)", "DNA (191Ir)")
    assert matches(align_channels({"a": panels["a"]}, by="name", how=reference)) == [
        ("DNA (193Ir)",),
        ("DNA (191Ir)",),
    ]


@pytest.mark.parametrize("other", ["TGFb", "TGF-B", "tgf_b"])
@pytest.mark.parametrize("greek", ["TGF-β", "TGF beta"])
def test_a_latin_letter_for_a_greek_one(greek: str, other: str) -> None:
    panels = {"a": named(greek), "b": named(other), "c": named(other.lower())}
    made = align_channels(panels, by="name")
    is_sound(made, panels)
    assert matches(made) == [(greek, other, other.lower())]


def test_a_latin_letter_that_may_be_another_channel() -> None:
    # The second cohort has both, so that b is not its beta; the third may mean either.
    panels = {"a": named("TGFβ"), "b": named("TGFβ", "TGFb"), "c": named("TGFb")}
    made = align_channels(panels, by="name")
    is_sound(made, panels)
    assert matches(made) == [("TGFβ", "TGFβ", None), (None, "TGFb", "TGFb")]


def test_two_greek_spellings_of_one_latin_one() -> None:
    panels = {"a": named("\u03b1b"), "b": named("aβ"), "c": named("ab")}
    two = {name: panels[name] for name in "ab"}
    assert matches(align_channels(two, by="name")) == [("\u03b1b", None), (None, "aβ")]
    with pytest.raises(InvalidInputError, match="several ways"):
        align_channels(panels, by="name")


def test_two_spellings_in_one_cohort() -> None:
    panels = {"a": named("CD3", "cd 3"), "b": named("CD-3")}
    with pytest.raises(
        InvalidInputError, match=r"\['cd 3'\] of the same cohort have the same name"
    ):
        align_channels(panels, by="name")


def test_a_reference_of_names() -> None:
    made = align_channels({"a": named("ki-67", "CD3")}, by="name", how=["Ki67", "TGF-β", "cd3"])
    assert made.names == ("Ki67", "TGF-β", "cd3")
    assert matches(made) == [("ki-67",), (None,), ("CD3",)]


# ------------------------------------------------------------------ by a table


TABLE = {"imc": {"DNA": "nuclei", "ECad": "E-cadherin"}, "mibi": {"Ecadherin": "E-cadherin"}}


def test_a_table_of_names(tmp_path: Path) -> None:
    panels = {"imc": IMC, "mibi": MIBI}
    made = align_channels(panels, by=TABLE)
    is_sound(made, panels)
    assert made.names == ("nuclei", "E-cadherin")
    assert matches(made) == [("DNA", None), ("ECad", "Ecadherin")]
    assert why(made, "imc", "CD3") == "the table of names does not name it"
    path = tmp_path / "names.csv"
    lines = ["cohort,channel_name,common_name"]
    lines += [f"{c},{n},{m}" for c, names in TABLE.items() for n, m in names.items()]
    path.write_text("\n".join(lines))
    for by in (path, str(path)):
        assert matches(align_channels(panels, by=by)) == matches(made)
    reference = align_channels(panels, by=TABLE, how=["E-cadherin", "CD3"])
    assert matches(reference) == [("ECad", "Ecadherin"), (None, None)]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"by": {"codex": {}}}, UnknownNameError, "table of names speaks of the cohort 'codex'"),
        ({"by": {"imc": {"CD8": "x"}}}, UnknownNameError, r"table of names .*\['CD8'\]"),
        ({"by": "unipro"}, NotFoundError, "by='unipro' is neither 'uniprot' nor 'name'"),
        ({"isoforms": "some"}, InvalidInputError, "isoforms must be one of .*'some'"),
        ({"ambiguous": "first"}, InvalidInputError, "ambiguous must be one of .*'first'"),
        ({"choose": {"codex": {}}}, UnknownNameError, "choose speaks of the cohort 'codex'"),
        ({"choose": {"imc": {"CD8": None}}}, UnknownNameError, r"choose speaks of .*\['CD8'\]"),
        ({"choose": {"imc": {"CD3": "CD9"}}}, UnknownNameError, "puts 'CD3' of 'imc' into 'CD9'"),
        (
            {"choose": {"imc": {"CD3": "ECad", "ECad": "ECad"}}},
            UnknownNameError,
            "into 'ECad', but the aligned",
        ),
        (
            {"choose": {"mibi": {"CD20": "CD44", "CD3e": "CD44"}}},
            InvalidInputError,
            "two channels of 'mibi' into 'CD44'",
        ),
    ],
)
def test_what_is_refused(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        align_channels({"imc": IMC, "mibi": MIBI}, **options)


def test_no_panel_at_all() -> None:
    with pytest.raises(InvalidInputError, match="at least one cohort"):
        align_channels({})


# ------------------------------------------------------------------ against a second computation


POOL = ["P07766", "P04234", "P02452", "P02751", "P12830"]
PANELS = st.lists(
    st.lists(st.sampled_from([*POOL, None]), min_size=1, max_size=6),
    min_size=1,
    max_size=4,
).map(
    lambda cohorts: {
        f"c{i}": Panel(tuple(Channel(f"c{i} {j}", a) for j, a in enumerate(accessions)))
        for i, accessions in enumerate(cohorts)
    }
)


@given(PANELS)
def test_single_accessions_match_as_a_dictionary_says(panels: dict[str, Panel]) -> None:
    made = align_channels(panels, ambiguous="report")
    is_sound(made, panels)
    # Per accession the cohorts that have it exactly once.
    once = {
        accession: {
            cohort
            for cohort, own in panels.items()
            if [c.uniprot_id for c in own].count(accession) == 1
        }
        for accession in POOL
    }
    expected = {accession: cohorts for accession, cohorts in once.items() if cohorts}
    assert {
        made.uniprot_ids[place]: {c for c in panels if made.index[c][place] >= 0}
        for place in range(len(made))
    } == expected
    for cohort in panels:
        for place, at in enumerate(made.index[cohort]):
            if at >= 0:
                assert panels[cohort].channels[at].uniprot_id == made.uniprot_ids[place]
    shared = align_channels(panels, how="intersection", ambiguous="report")
    is_sound(shared, panels)
    assert set(shared.uniprot_ids) == {a for a, c in once.items() if len(c) == len(panels)}


SETS = st.lists(
    st.lists(st.sets(st.sampled_from(POOL), max_size=3), min_size=1, max_size=5),
    min_size=2,
    max_size=4,
).map(
    lambda cohorts: {
        f"c{i}": Panel(
            tuple(Channel(f"c{i} {j}", ";".join(sorted(a)) or None) for j, a in enumerate(sets))
        )
        for i, sets in enumerate(cohorts)
    }
)


@given(SETS, st.randoms())
def test_no_order_of_cohorts_matters(panels: dict[str, Panel], shuffle: random.Random) -> None:
    def places(made: ChannelAlignment) -> set[frozenset[str]]:
        return {frozenset(c for c in place if c) for place in matches(made)}

    made = align_channels(panels, ambiguous="report")
    is_sound(made, panels)
    names = list(panels)
    shuffle.shuffle(names)
    other = align_channels({name: panels[name] for name in names}, ambiguous="report")
    assert places(other) == places(made)
    assert status(other) == status(made)
    shared = align_channels(panels, how="intersection", ambiguous="report")
    is_sound(shared, panels)
    assert places(shared) == {place for place in places(made) if len(place) == len(panels)}


@given(SETS)
def test_what_is_matched_shares_an_accession_and_nothing_else_could(
    panels: dict[str, Panel],
) -> None:
    made = align_channels(panels, ambiguous="report")
    own = {c.name: frozenset(c.accessions) for p in panels.values() for c in p}
    for place in matches(made):
        there = [own[channel] for channel in place if channel]
        assert frozenset.intersection(*there)
        assert len(set(there)) <= 2
    first = [own[c.name] for c in panels["c0"]]
    targets = [c.name for c in panels["c0"] if c.accessions and first.count(own[c.name]) == 1]
    if targets:
        reference = panels["c0"].select(targets[:1])
        (target,) = reference.names
        followed = align_channels(panels, how=reference, ambiguous="report")
        is_sound(followed, panels)
        for cohort, panel_ in panels.items():
            exact = [c.name for c in panel_ if own[c.name] == own[target]]
            near = [c.name for c in panel_ if own[c.name] & own[target]]
            at = int(followed.index[cohort][0])
            expected = exact if len(exact) == 1 else [] if exact else near
            found = [panel_.names[at]] if at >= 0 else []
            if len(expected) == 1:
                assert found == expected
            else:
                assert found == []


@given(
    st.lists(
        st.lists(
            st.sampled_from(["CD3", "cd-3", "CD4", "Ki67", "KI 67", "p53"]), min_size=1, unique=True
        ),
        min_size=1,
        max_size=4,
    )
)
def test_names_match_as_their_keys_say(cohorts: list[list[str]]) -> None:
    panels = {f"c{i}": named(*names) for i, names in enumerate(cohorts)}
    made = align_channels(panels, by="name", ambiguous="report")
    is_sound(made, panels)
    for place in matches(made):
        assert len({name_key(channel) for channel in place if channel}) == 1
    placed = {row.channel for row in made.report if row.channel and row.aligned}
    for cohort, own in panels.items():
        keys = [name_key(name) for name in own.names]
        for name in own.names:
            if keys.count(name_key(name)) == 1:
                assert name in placed
            else:
                assert status(made)[cohort, name] == "ambiguous"


# ------------------------------------------------------------------ what it says, and real panels


def test_what_it_says() -> None:
    made = align_channels({"imc": IMC, "mibi": panel(CD3e=CD3, DNA=None)})
    assert str(made).splitlines() == [
        "3 aligned channels of 2 cohorts",
        "  CD3   P07766  imc: CD3   mibi: CD3e",
        "  ECad  P12830  imc: ECad  mibi: -",
        "  CD44  P16070  imc: CD44  mibi: -",
        "left out:",
        "  imc: DNA: it has no UniProt accession; align by='name' or with a table",
        "  mibi: DNA: it has no UniProt accession; align by='name' or with a table",
    ]
    table = made.table()
    assert table.column_names == ["cohort", "channel", "aligned", "status", "why"]
    assert table.to_pylist()[-1] == {
        "cohort": "mibi",
        "channel": None,
        "aligned": "CD44",
        "status": "missing",
        "why": "the panel has none like it",
    }
    with pytest.raises(UnknownNameError, match="no cohort 'codex', only"):
        made.present("codex")


def test_the_imc_and_mibi_cohorts_of_the_tutorial(shared_data: Path) -> None:
    (mibi,) = (shared_data / "mibi").glob("*Filtered.tiff")
    names = open_image(mibi).channel_names
    assert names is not None
    panels = {
        "imc": read_panel(shared_data / "imc/steinbock_panel.csv"),
        "mibi": Panel.from_names(names),
    }
    made = align_channels(panels, by="name")
    is_sound(made, panels)
    # The two have no channel of the same name: cytokeratin 5 is not pan-keratin.
    assert len(made) == 5 + 22
    table = {"imc": {"H3K27Ac": "histone H3"}, "mibi": {"HH3": "histone H3"}}
    joined = align_channels(panels, by=table, how="intersection")
    assert matches(joined) == [("H3K27Ac", "HH3")]


def test_a_hundred_cohorts() -> None:
    rng = np.random.default_rng(0)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    pool = [
        f"P{i // 10000 % 10}{letters[i // 26 % 26]}{letters[i % 26]}A{i % 10}" for i in range(600)
    ]
    pool = sorted(set(pool))
    panels = {
        f"c{k}": Panel(
            tuple(Channel(f"m{i}", pool[i]) for i in rng.choice(len(pool), 43, replace=False))
        )
        for k in range(100)
    }
    made = align_channels(panels)
    is_sound(made, panels)
    used = {c.uniprot_id for own in panels.values() for c in own}
    assert set(made.uniprot_ids) == used


def test_what_a_table_does_not_name_may_go_by_its_own_name():
    panels = {
        "imc": Panel(tuple(map(Channel, ["H3K27Ac", "CD20", "DNA (191Ir)", "DNA (193Ir)"]))),
        "mibi": Panel(tuple(map(Channel, ["HH3 (89)", "CD20 (164)", "SMA (115)"]))),
    }
    table = {"imc": {"H3K27Ac": "histone H3"}, "mibi": {"HH3 (89)": "histone H3"}}
    assert align_channels(panels, by=table).names == ("histone H3",)
    found = align_channels(panels, by=table, others="name")
    assert found.names == ("histone H3", "CD20", "DNA (191Ir)", "DNA (193Ir)", "SMA")
    assert found.index["imc"].tolist() == [0, 1, 2, 3, -1]
    assert found.index["mibi"].tolist() == [0, 1, -1, -1, 2]
    with pytest.raises(InvalidInputError, match="others='name' speaks"):
        align_channels(panels, by="name", others="name")
    with pytest.raises(InvalidInputError, match="others must be one of"):
        align_channels(panels, by=table, others="all")


def test_what_comes_with_a_panel_will_do():
    class Cohort:
        panel = Panel.from_names(["CD3", "CD20"])

    found = align_channels({"a": Cohort(), "b": Panel.from_names(["CD20"])}, by="name")
    assert found.names == ("CD3", "CD20")
    with pytest.raises(InvalidInputError, match="cohort 'a' has no panel but list"):
        align_channels({"a": ["CD3"]}, by="name")
