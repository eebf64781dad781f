"""The page and the pictures of an inspection: files, inside of a well-formed page that fetches nothing."""

import base64
import re
import sys
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import vfrnn
from vfrnn.inspection.drawing import matplotlib
from vfrnn.inspection.frames import frame_pictures
from vfrnn.inspection.page import Picture, page
from vfrnn.inspection.records import layer_records
from vfrnn.inspection.training_picture import training_pictures

PNG, GIF = b"\x89PNG", b"GIF89a"


def parsed(text: str) -> ElementTree.Element:
    assert text.startswith("<!doctype html>\n")
    return ElementTree.fromstring(text.partition("\n")[2])


def images(text: str) -> dict[str, bytes]:
    """The pictures of a page, by the kind and the title they give."""
    found = {}
    for image in parsed(text).iter("img"):
        head, _, data = image.attrib["src"].partition(",")
        assert re.fullmatch(r"data:image/(png|gif);base64", head)
        found[image.attrib["alt"]] = base64.b64decode(data, validate=True)
    return found


def fetches_nothing(text: str) -> bool:
    return not re.search(r"""https?:|//|(src|href)=["'](?!data:)|url\(|@import""", re.sub(r"base64,[^\"]*", "", text))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A model of several layers on a grid, drawn: its folder and its page."""
    pytest.importorskip("matplotlib", reason="needs vfrnn-kernels[train]")
    torch.manual_seed(0)
    model = nn.ModuleDict({"<a>": vfrnn.VFRNN(2, 9, mesh=vfrnn.LatentMesh.grid(3, 3)), "b": vfrnn.RNN(9, 4)})
    with torch.no_grad():
        model["<a>"].divergence_scale_l0.fill_(0.1)
    more = [Picture("own", "My <own>", "a & b", PNG)]
    folder = tmp_path_factory.mktemp("inspect") / "new"
    path = vfrnn.inspect(model, lags=(1, 10)).draw(folder, title="A & B", more=more, told=["Told & said."])
    return folder, path.read_text(encoding="utf-8")


def test_every_picture_is_a_file_and_inside_of_the_page(drawn):
    folder, text = drawn
    names = {"field", "own", "angles", "eigenvalues", "half-lives", "singular-values", "divergence", "gradient"}
    assert {path.name for path in folder.iterdir()} == {"index.html", *(f"{name}.png" for name in names)}
    inside = images(text)
    assert len(inside) == len(names)
    assert sorted(inside.values()) == sorted((folder / f"{name}.png").read_bytes() for name in names)
    assert all(data.startswith(PNG) for data in inside.values())


def test_the_page_fetches_nothing_and_suits_narrow_and_dark_screens(drawn):
    _, text = drawn
    assert fetches_nothing(text)
    assert not fetches_nothing('<img src="https://example.org/a.png"/>')
    head = parsed(text).find("head")
    assert [meta.attrib["content"] for meta in head.iter("meta") if meta.attrib.get("name") == "viewport"]
    assert "prefers-color-scheme: dark" in head.find("style").text


def test_words_are_escaped_and_facts_are_in_a_table(drawn):
    _, text = drawn
    tree = parsed(text)
    assert tree.find("body/h1").text == "A & B"
    cells = [[cell.text for cell in row] for row in tree.iter("tr")]
    assert [row[0] for row in cells] == ["layer", "<a> (VFRNN)", "b (RNN)"]
    assert cells[1][-1].endswith("(scale 0.1)")
    sentences = [paragraph.text for paragraph in tree.iter("p")]
    assert "Told & said." in sentences
    assert any(sentence.startswith("The recurrent weight is any matrix") for sentence in sentences)


def test_printed_it_is_the_same_table():
    lines = str(vfrnn.inspect(nn.Sequential(vfrnn.OrthogonalRNN(2, 5), vfrnn.RNN(5, 3)))).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["layer", "0 (OrthogonalRNN)", "1 (RNN)"]
    assert "3 kept" in lines[1]
    assert "no field" in lines[2]


@pytest.mark.parametrize("size", [1, 2])
def test_the_smallest_networks_are_drawn(size, tmp_path):
    pytest.importorskip("matplotlib", reason="needs vfrnn-kernels[train]")
    found = vfrnn.inspect(vfrnn.OrthogonalRNN(1, size), torch.zeros(1, 1, 1))
    assert "Rotation angles" in images(found.draw(tmp_path).read_text(encoding="utf-8"))


def test_frames_are_a_strip_and_an_animation():
    image = pytest.importorskip("PIL.Image", reason="needs vfrnn-kernels[train]")
    import io

    true = torch.randn(4, 5, 6, dtype=torch.float64)
    animation, strip = frame_pictures(true, true + 0.1 * torch.randn_like(true))
    assert animation.data.startswith(GIF)
    assert image.open(io.BytesIO(animation.data)).n_frames == 4
    assert strip.data.startswith(PNG)
    assert re.search(r"after 3 steps: 0\.\d\d\.$", animation.caption)
    assert fetches_nothing(page("frames", [], [["a"]], [animation, strip]))


def test_training_is_drawn_from_records():
    pytest.importorskip("matplotlib", reason="needs vfrnn-kernels[train]")
    field, plain = layer_records(vfrnn.VFRNN(2, 6, num_layers=2)), layer_records(vfrnn.RNN(2, 1))
    names = [[picture.name for picture in training_pictures(epochs)] for epochs in ([field] * 3, [plain], [])]
    assert names == [["angles-over-training", "divergence-over-training"], [], []]


def test_numbers_need_no_matplotlib_and_pictures_say_what_they_need(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = vfrnn.inspect(vfrnn.RNN(2, 3))
    message = r"the pictures need matplotlib: pip install 'vfrnn-kernels\[train\]'"
    with pytest.raises(RuntimeError, match=message):
        found.draw(tmp_path)
    with pytest.raises(RuntimeError, match=message):
        matplotlib()
