import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from helpers.browser import browser
from helpers.report_inputs import example_numbers, local, report_inputs, sources

from crefjax.errors import UserError
from crefjax.io.header import header_rows
from crefjax.io.maps import read_header, write_map
from crefjax.report.writer import check_report_folder, write_report

HOSTILE = "<script>alert('x')</script>&\"'<img src=x onerror=y>"
VOID = {"meta", "img", "input", "link", "br"}


class Page(HTMLParser):
    """Elements of a page, with what is wrong about its nesting."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def write(folder, *, numbers=None, name="denoised.mrc", **options):
    inputs = report_inputs(folder, name)
    out = folder / "report"
    write_report(inputs, numbers or example_numbers(), out, sources=sources(inputs), **options)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    warnings = [{"kind": "signal_damped", "text": f"first {HOSTILE}"}, {"kind": "bias", "text": "second"}]
    return write(tmp_path_factory.mktemp("page"), numbers=example_numbers(warnings=warnings), local=local())


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "index.html").read_text(encoding="utf-8"))


def test_page_loads_nothing_from_elsewhere(page, folder):
    for _, attributes in page.elements:
        for name in ("src", "srcset", "poster", "data", "action", "background"):
            assert attributes.get(name, "data:").startswith("data:")
        where = attributes.get("href", "data:")
        assert where.startswith(("data:", "#")) or (folder / unquote(where)).is_file()
    text = (folder / "index.html").read_text(encoding="utf-8")
    own = re.sub(r'data:[^"]*|<script type="text/plain".*?</script>', "", text, flags=re.DOTALL)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttp|WebSocket", own)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert len(text) < 4e6


def test_page_is_accessible(page):
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.all("img"))
    labels = {label["for"] for label in page.all("label") if "for" in label}
    sliders = [element["id"] for element in page.all("input") if element["type"] == "range"]
    assert sliders == ["slider", "gray-black", "gray-white", "plane-z", "plane-y", "plane-x", "surface-contour"]
    assert labels.issuperset(sliders)
    assert [tag for tag, _ in page.elements].count("h1") == 1
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_page_starts_with_warnings_and_recommendations(page):
    order = [
        "Warnings (2)",
        "Signal damped. first <script>",
        "second",
        "Use it for looking at it",
        "Do not use it for reporting a resolution",
        "In numbers",
        "3.89 Å",
        "Before and after",
        "Shell by shell",
        "Header of input and output",
        "something to know",
        "Files",
    ]
    places = [page.text.index(words) for words in order]
    assert places == sorted(places)


def test_page_without_warnings_lists_the_tests(tmp_path):
    text = Page((write(tmp_path) / "index.html").read_text(encoding="utf-8")).text
    assert "No warnings" in text
    assert "No sign of: a noisy map in place of a denoised one; half-maps without signal" in text
    assert "a mask that cuts the particle" in text
    assert "a single small false feature does not show" in text


def test_missing_mask_is_not_reported_as_checked(tmp_path):
    numbers = example_numbers()
    numbers["mask"] |= {"from": "none, the whole box", "whole_box": True}
    text = Page((write(tmp_path, numbers=numbers) / "index.html").read_text(encoding="utf-8")).text
    assert "No sign of: a noisy map in place of a denoised one; half-maps without signal" in text
    assert "cuts the particle" not in text


def test_page_without_denoised_half_maps_names_the_open_question(tmp_path):
    folder = write(tmp_path, numbers=example_numbers(halves=False))
    text = Page((folder / "index.html").read_text(encoding="utf-8")).text
    assert "--denoised-halves" in text
    assert "main question stays open" in text
    assert "Signal kept" not in text
    assert len(list((folder / "figures").iterdir())) == 8


def test_texts_from_outside_are_escaped(tmp_path):
    name = "<b>&'é.mrc"
    numbers = example_numbers(warnings=[{"kind": HOSTILE, "text": HOSTILE}])
    numbers["notes"] = numbers["use"]["for"] = numbers["use"]["not_for"] = [HOSTILE]
    numbers["mask"]["from"] = HOSTILE
    inputs = report_inputs(tmp_path, name)
    inputs.parameters["weights"] = HOSTILE
    write_map(tmp_path / name, inputs.denoised, label=HOSTILE, overwrite=True)
    write_report(inputs, numbers, tmp_path / "out", sources={HOSTILE: inputs.denoised.path})
    page = Page((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    scripts = [script for script in page.all("script") if script.get("type") not in ("text/plain", "application/json")]
    assert scripts == [{}] * 5  # one of the report, and four of the viewer
    assert not page.all("b")
    assert not [tag for tag, attributes in page.elements if "onerror" in attributes]
    assert page.text.count("<script>alert('x')</script>") >= 8  # labels of a header, too
    assert f"<title>{name}" not in page.text
    assert name in page.text


def test_figures_of_the_page_are_those_of_the_folder(page, folder):
    contents = {base64.b64decode(image["src"].split(",")[1]) for image in page.all("img")}
    files = sorted((folder / "figures").glob("*.svg"))
    assert [path.stem for path in files] == ["directional", "fit_to_cref", "fsc", "kept", "power", "ratios"]
    assert all(path.read_bytes() in contents for path in files)
    # three planes each: full, denoised, change, two local maps; three scales; six figures; four scales of the viewer
    assert len(page.all("img")) == 15 + 3 + 6 + 4


def test_report_json_is_strict_and_complete(folder):
    def refuse(word):
        raise AssertionError(word)

    report = json.loads((folder / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert report["curves"] == example_numbers()["curves"]
    assert report["warnings"][1] == {"kind": "bias", "text": "second"}
    assert set(report["versions"]) == {"jax", "numpy", "python", "platform"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", report["created"])
    assert report["local"] == {"window": 12.0, "resolution": 3.9}
    source = (folder.parent / "half_2.mrc").read_bytes()
    expected = {"path": "half_2.mrc", "sha256": hashlib.sha256(source).hexdigest(), "bytes": len(source)}
    assert report["inputs"]["half_map_2"] == expected
    assert set(report["files"]) == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_header_table_marks_what_differs(tmp_path):
    inputs = report_inputs(tmp_path)
    rows = {
        row.name: row
        for row in header_rows(read_header(inputs.half_map_1.path), read_header(tmp_path / "denoised.mrc"))
    }
    assert {name for name, row in rows.items() if row.differs} == {"Minimum, maximum", "Mean, standard deviation"}
    assert all(row.expected for row in rows.values() if row.differs)
    assert rows["Size x, y, z (voxels)"].before == "28, 24, 20"
    assert rows["ORIGIN x, y, z (Å)"].after == "3, 0, -4.5"
    raw = bytearray((tmp_path / "denoised.mrc").read_bytes())
    raw[16:20] = (7).to_bytes(4, "little")  # NXSTART
    raw[88:92] = (0).to_bytes(4, "little")  # ISPG
    (tmp_path / "denoised.mrc").write_bytes(raw)
    rows = {
        row.name: row
        for row in header_rows(read_header(inputs.half_map_1.path), read_header(tmp_path / "denoised.mrc"))
    }
    assert rows["NSTART column, row, section"].after == "7, 0, 0"
    differing = {name for name, row in rows.items() if row.differs and not row.expected}
    assert differing == {"NSTART column, row, section", "Space group (ISPG)"}
    write_report(inputs, example_numbers(), tmp_path / "out", sources={})
    page = Page((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert [row["class"] for row in page.all("tr") if "class" in row] == ["differs"] * 2


def test_only_an_earlier_report_is_replaced(tmp_path):
    (tmp_path / "empty").mkdir()
    check_report_folder(tmp_path / "empty")
    folder = write(tmp_path)
    with pytest.raises(UserError, match="`overwrite`"):
        check_report_folder(folder)
    check_report_folder(folder, overwrite=True)
    (folder / "figures" / "mine.txt").write_text("dear to the user")
    with pytest.raises(UserError, match=r"figures/mine\.txt"):
        check_report_folder(folder, overwrite=True)
    (folder / "report.json").write_text("{}")
    with pytest.raises(UserError, match="expected a report to replace"):
        check_report_folder(folder, overwrite=True)


def test_nothing_is_left_if_the_disk_refuses(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("crefjax.report.writer.page", full_disk)
    with pytest.raises(UserError, match="No space left"):
        write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["denoised.mrc", "half_1.mrc", "half_2.mrc"]


LOOK = """
  const slider = document.getElementById('slider'), after = [...document.querySelectorAll('.after')];
  const look = () => after.map(image => [getComputedStyle(image).clipPath, getComputedStyle(image).opacity]);
  const move = value => { slider.value = value; slider.dispatchEvent(new Event('input')); return look(); };
  const found = {at: {0: move(0), 30: move(30), 100: move(100)}};
  document.getElementById('fade').click();
  found.fade = {0: move(0), 30: move(30)};
  found.text = slider.getAttribute('aria-valuetext');
  document.getElementById('edge').click();
  found.edge = getComputedStyle(document.querySelector('.edge')).display;
  const images = [...document.querySelectorAll('#slices img, #curves img')];
  found.images = images.map(image => [image.naturalWidth, image.clientWidth, image.clientHeight]);
  found.wide = document.documentElement.scrollWidth > innerWidth;
  found.resources = performance.getEntriesByType('resource').map(resource => resource.name);
  new Image().src = 'http://127.0.0.1:9/outside.png';
  await new Promise(done => setTimeout(done, 50));
  return found;
"""


def test_in_a_browser_the_slider_moves_and_nothing_leaves_the_page(folder, tmp_path):
    with browser(tmp_path) as tab:
        tab.open(folder / "index.html")
        found, problems = tab.run(LOOK), tab.problems()
    assert found["at"]["0"] == [["inset(0px 100% 0px 0px)", "1"]] * 3
    assert found["at"]["30"] == [["inset(0px 70% 0px 0px)", "1"]] * 3
    assert found["at"]["100"] == [["inset(0px)", "1"]] * 3 or found["at"]["100"][0][0].startswith("inset(0px 0%")
    assert found["fade"] == {"0": [["none", "0"]] * 3, "30": [["none", "0.3"]] * 3}
    assert found["text"] == "30 % denoised"
    assert found["edge"] == "none"
    assert len(found["images"]) == 15 + 3 + 6
    assert all(min(sizes) > 0 for sizes in found["images"])
    assert not found["wide"]
    assert all(name.startswith("data:") for name in found["resources"])
    assert problems == ["refused: http://127.0.0.1:9/outside.png"]
