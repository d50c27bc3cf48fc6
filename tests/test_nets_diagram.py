"""Diagrams: blocks, their shapes and places, what leads where, the files."""

import itertools

import pytest
from outlines import outline

from keras_seg.errors import UsageError
from keras_seg.nets import diagram

SMALL = {"hourglass": (32, 48), "fcn_dilated_tanh": (40, 48), "unet_valid": (144, 160)}
KNOBS = {"hourglass": {"depth": 2, "stacks": 2, "joints": 24}}
DRAWN = [(net, part) for net, parts in diagram.PARTS.items() for part in parts]


def drawn(net, part="", **knobs):
    knobs = knobs or KNOBS.get(net, {})
    model = outline(net, SMALL.get(net, (64, 96)), 25, **knobs)
    return diagram.blocks(model, net, part)


def by_title(blocks):
    return {block.title: block for block in blocks}


@pytest.mark.parametrize(("net", "part"), [d for d in DRAWN if d[1] != "indices"])
def test_blocks_do_not_overlap_and_arrows_go_on(net, part):
    blocks = drawn(net, part)
    assert len(blocks) > 2
    for one, other in itertools.combinations(blocks, 2):
        if one.rank == other.rank:
            assert abs(one.row - other.row) > (one.tall + other.tall) / 2
    for block in blocks:
        assert all(source.rank < block.rank for source in block.sources)
    ranks = {block.rank for block in blocks}
    assert ranks == set(range(len(ranks)))


def test_u_net_of_cloth():
    """Fig. 1: four levels and the bottom, a skip across each, batch norm everywhere."""
    found = by_title(drawn("unet_bn"))
    sizes = [(64, 96), (32, 48), (16, 24), (8, 12)]
    for i, (size, filters) in enumerate(zip(sizes, (64, 128, 256, 512)), 1):
        encoder, decoder = found[f"encoder {i}"], found[f"decoder {i}"]
        assert encoder.shape == decoder.shape == (*size, filters)
        assert encoder in decoder.sources
        assert encoder.row == decoder.row
        assert encoder.size().endswith(f" → {size[0] // 2}×{size[1] // 2}")
        assert encoder.lines()[1:] == ["2 × conv 3×3 · BN · ReLU", "max pool 3×3 /2"]
    assert found["bottleneck"].shape == (4, 6, 1024)
    assert found["bottleneck"].row > found["encoder 4"].row
    assert found["classifier"].kind == "head"


def test_branches_of_icnet():
    """Fig. 3: three resolutions, joined by two fusions, three heads."""
    found = by_title(drawn("icnet"))
    heads = {title for title, block in found.items() if block.kind == "head"}
    assert heads == {"sub4_out", "sub24_out", "conv6_cls"}
    fusion, finer = found["cascade fusion"], found["cascade fusion, finer"]
    assert {block.title for block in fusion.sources} == {
        "conv5_4",
        "conv3_1, bottleneck",
    }
    assert {b.title for b in finer.sources} == {"sub24_sum_interp", "high resolution"}
    assert found["image"] in found["high resolution"].sources
    assert found["conv1, half resolution"].sources[found["image"]] == "resize /2"


def test_words_are_on_their_own_stretch_of_an_arrow():
    """Fig. 12: what is pooled goes down, what is not across; the image is halved once.

    So the words are in the gap below the source, not where both arrows are one.
    """
    for net, part, words in (
        ("hourglass", "module", "max pool 2×2 /2"),
        ("icnet", "", "resize /2"),
    ):
        blocks = drawn(net, part)
        (axes,) = diagram.draw(blocks, "").axes
        places = [text for text in axes.texts if text.get_text() == words]
        sources = [
            source
            for block in blocks
            for source, text in block.sources.items()
            if text == words
        ]
        assert len(places) == len(sources) > 0
        for text, source in zip(places, sources):
            assert text.get_position()[1] < -source.row - source.tall / 2
            assert text.get_horizontalalignment() == "right"


def test_fusion_of_icnet():
    """Fig. 2: the coarser map enlarged and convolved, both normalised, summed, ReLU."""
    found = by_title(drawn("icnet", "fusion"))
    low, high = found["conv_sub4"], found["conv3_1_sub2_proj"]
    assert low.lines()[1] == "conv 3×3, dilation 2 · BN"
    assert list(low.sources.values()) == ["resize ×2"]
    assert high.lines()[1] == "conv 1×1 · BN"
    (join,) = (block for block in found.values() if block.kind == "join")
    assert set(join.sources) == {low, high}
    assert join.lines() == ["+ · ReLU"]


def test_indices_lead_across_segnet():
    found = by_title(drawn("segnet_basic"))
    for i in range(1, 5):
        assert found[f"decoder {i}"].sources[found[f"encoder {i}"]] == "indices"


def test_residual_module_of_the_hourglass():
    """Fig. 13: 1x1 to half the width, 3x3, 1x1 back, and the input added."""
    blocks = drawn("hourglass", "residual")
    texts = [block.lines()[-1] for block in blocks if block.kind == "encoder"]
    assert texts == [
        "BN · ReLU · conv 1×1 · BN · ReLU",
        "conv 3×3 · BN · ReLU",
        "conv 1×1",
    ]
    (outside,) = (block for block in blocks if block.kind == "outside")
    (join,) = (block for block in blocks if block.kind == "join")
    assert outside in join.sources


def test_the_joint_branch_is_beside_the_next_stack():
    found = by_title(drawn("hourglass"))
    branch, stack = found["hourglass, joints 0"], found["hourglass, stack 1"]
    assert set(branch.sources) == set(stack.sources) == {found["fed back, stack 0"]}
    assert found["joints0_heatmaps"].kind == "head"


def test_strided_layers_are_blocks_of_their_own():
    found = by_title(drawn("fcn_attention", encoder="layers", aspp=False))
    names = ("enc1_conv1", "enc1_conv2", "enc2_conv1", "enc2_conv2")
    for name, i in zip(names, (1, 2, 3, 4)):
        assert found[name] in found[f"decoder {i}"].sources


@pytest.mark.parametrize(
    ("name", "starts"), [("a.svg", b"<?xml"), ("a.png", b"\x89PNG")]
)
@pytest.mark.parametrize("part", ["fusion", ""])
def test_files(name, starts, part, tmp_path):
    model = outline("icnet", (64, 96), 25)
    diagram.write(model, "icnet", tmp_path / name, part)
    assert (tmp_path / name).read_bytes().startswith(starts)


def test_indices_are_shown_by_the_layers_themselves(tmp_path):
    """Of each 2x2 the maximum, put back where it was."""
    figure = diagram.draw_indices("SegNet")
    (axes,) = figure.axes
    numbers = [text.get_text() for text in axes.texts if text.get_text().isdigit()]
    values = [1, 3, 2, 0, 5, 2, 1, 7, 0, 4, 6, 1, 2, 1, 3, 2]
    back = [0, 0, 0, 0, 5, 0, 0, 7, 0, 4, 6, 0, 0, 0, 0, 0]
    assert numbers == [*map(str, values), "5", "7", "4", "6", *map(str, back)]
    model = outline("segnet_basic", (48, 64), 25)
    diagram.write(model, "segnet_basic", tmp_path / "indices.svg", "indices")
    assert b"<svg" in (tmp_path / "indices.svg").read_bytes()


def test_what_cannot_be_drawn(tmp_path):
    model = outline("icnet", (64, 96), 25)
    with pytest.raises(UsageError, match="neither an .svg nor a .png file"):
        diagram.write(model, "icnet", tmp_path / "a.pdf")
    with pytest.raises(UsageError, match="no part 'heads' to draw. Parts: fusion."):
        diagram.write(model, "icnet", tmp_path / "a.svg", "heads")
    with pytest.raises(UsageError, match="cannot be written"):
        diagram.write(model, "icnet", tmp_path / "none" / "a.svg")
    assert not list(tmp_path.iterdir())
