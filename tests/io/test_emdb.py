"""Downloads from a server on the loopback address that has the layout of EMDB's archive, and every fault of servers."""

import gzip
import hashlib
import json
import signal
import subprocess
import sys

import pytest
from helpers.archive import entry_files, map_bytes, serving
from helpers.cli import error_line, run_crefjax

from crefjax.errors import UserError
from crefjax.io.emdb import entry_number, fetch_entries, fetch_entry, read_list, search_emdb
from crefjax.io.entries import find_entry
from crefjax.io.http import HttpClient, Retries

HALF = "/structures/EMD-1234/other/emd_1234_half_map_1.map.gz"
MASK = "/structures/EMD-1234/masks/emd_1234_msk_1.map"
NAMES = ["emd_1234_half_map_1.map.gz", "emd_1234_half_map_2.map.gz", "emd_1234_msk_1.map", "entry.json"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    return (
        entry_files(folder, 1234) | entry_files(folder, 4321, mask=False) | entry_files(folder, 5555, half_maps=False)
    )


@pytest.fixture
def archive(files):
    with serving(files) as archive:
        yield archive


@pytest.fixture
def client():
    """A client that does not wait, but writes down for how long it would have."""
    waited = []
    client = HttpClient(sleep=waited.append)
    client.waited = waited
    yield client
    client.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fetch(archive, folder, client, **more):
    return fetch_entry("EMD-1234", folder, base_url=archive.url, client=client, **more)


def test_half_maps_and_mask_are_downloaded_unchanged(archive, client, files, tmp_path):
    shares = []
    fetched = fetch(archive, tmp_path / "e", client, report=lambda *share: shares.append(share))
    assert names(tmp_path / "e") == NAMES
    for file in fetched.files:
        assert file.path.read_bytes() == files[file.url.removeprefix(archive.url)]
    assert shares[-1] == (1.0, "emd_1234_msk_1.map")
    assert find_entry(tmp_path / "e").mask.name == "emd_1234_msk_1.map"


def test_entry_json_has_what_the_description_says_and_checksums(archive, client, files, tmp_path):
    fetch(archive, tmp_path, client)
    content = json.loads((tmp_path / "entry.json").read_text())
    found = content.pop("files")
    assert content == {
        "format": "crefjax entry",
        "entry": "EMD-1234",
        "title": "Phantom 1234",
        "method": "singleParticle",
        "resolution": 3.2,
        "resolution_method": "FSC 0.143 CUT-OFF",
        "voxel_size": 1.5,
        "contour_level": 0.025,
        "point_group": "D2",
        "pdb": ["1abc"],
        "base_url": archive.url,
    }
    assert found["emd_1234_half_map_1.map.gz"] == {
        "url": archive.url + HALF,
        "bytes": len(files[HALF]),
        "sha256": hashlib.sha256(files[HALF]).hexdigest(),
    }


def test_requests_say_who_asks(archive, client, tmp_path):
    fetch(archive, tmp_path, client)
    assert all(headers["User-Agent"].startswith("crefjax/") for _, headers in archive.requests)


def test_map_and_model_are_downloaded_if_asked_for(archive, client, tmp_path):
    import gemmi

    structure = gemmi.Structure()
    structure.add_model(gemmi.Model(1))
    structure[0].add_chain("A")
    residue = gemmi.Residue()
    residue.name, residue.seqid = "ALA", gemmi.SeqId("1")
    atom = gemmi.Atom()
    atom.name, atom.element = "CA", gemmi.Element("C")
    residue.add_atom(atom)
    structure[0][0].add_residue(residue)
    text = structure.make_mmcif_document().as_string()
    archive.files["/pdb/ab/1abc.cif.gz"] = gzip.compress(text.encode(), mtime=0)
    fetch(archive, tmp_path, client, what=("map", "model"), pdb_url=f"{archive.url}/pdb")
    assert names(tmp_path) == ["emd_1234.map.gz", "entry.json", "model.cif.gz"]
    assert gemmi.read_structure(str(tmp_path / "model.cif.gz"))[0][0][0].name == "ALA"


def test_existing_files_are_not_downloaded_again(archive, client, tmp_path):
    (tmp_path / "emd_1234_half_map_1.map.gz").write_bytes(b"mine")
    fetch(archive, tmp_path, client)
    assert (tmp_path / "emd_1234_half_map_1.map.gz").read_bytes() == b"mine"
    assert not archive.asked("half_map_1")


@pytest.mark.parametrize("etag", [None, '"one"'])
def test_a_broken_connection_is_continued_where_it_broke_off(archive, client, files, tmp_path, etag):
    if etag:
        archive.etags[HALF] = etag
    archive.faults[HALF] += ["cut 1000", "cut 3000"]
    fetch(archive, tmp_path, client)
    first, second, third = archive.asked("half_map_1")
    assert "Range" not in first
    assert (second["Range"], third["Range"]) == ("bytes=1000-", "bytes=4000-")
    assert second["If-Range"] == (etag or "Tue, 14 Nov 2023 22:13:20 GMT")
    assert (tmp_path / NAMES[0]).read_bytes() == files[HALF]
    assert len(client.waited) == 2


def test_a_file_that_changed_meanwhile_is_begun_anew(archive, client, files, tmp_path):
    archive.etags[HALF] = '"one"'
    archive.faults[HALF] += ["cut 1000"]
    answered = client._receive

    def changing(part, report):
        if part.size == 1000:
            archive.etags[HALF] = '"two"'
            archive.files[HALF] = gzip.compress(gzip.decompress(files[HALF]), compresslevel=1, mtime=0)
        return answered(part, report)

    client._receive = changing
    fetch(archive, tmp_path, client)
    assert (tmp_path / NAMES[0]).read_bytes() == archive.files[HALF] != files[HALF]


def test_a_server_without_ranges_is_asked_for_the_whole_file(archive, client, files, tmp_path):
    archive.faults[HALF] += ["cut 1000", "ignore range"]
    fetch(archive, tmp_path, client)
    assert (tmp_path / NAMES[0]).read_bytes() == files[HALF]


@pytest.mark.parametrize("status", ["429", "503"])
def test_a_busy_server_is_asked_again_after_growing_pauses(archive, client, tmp_path, status):
    archive.faults[HALF] += [status] * 4
    fetch(archive, tmp_path, client)
    assert all(low <= pause <= 1.25 * low for low, pause in zip((1, 2, 4, 8), client.waited, strict=True))


def test_retry_after_is_respected(archive, client, tmp_path):
    archive.faults[HALF] += ["429 40", "503 7000"]
    fetch(archive, tmp_path, client)
    assert client.waited == [40, Retries().longest]


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (["503"] * 6, r"given up after 6 attempts \(the server answered 503"),
        (["cut 0"] * 6, r"given up after 6 attempts"),
        (["403"], "the server answered 403 .*check the address"),
        (["html", "html"], "downloaded twice and is damaged: not an MRC/CCP4 map: it looks like text"),
    ],
)
def test_failed_download_leaves_nothing_under_the_final_name(archive, client, tmp_path, faults, message):
    archive.faults[HALF] += faults
    with pytest.raises(UserError, match=message) as caught:
        fetch(archive, tmp_path / "e", client)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "e" / NAMES[0]).exists()


def test_a_page_in_place_of_a_map_is_not_taken_for_one(archive, client, files, tmp_path):
    archive.faults[HALF] += ["html"]  # a proxy asks for a login, once
    fetch(archive, tmp_path, client)
    assert (tmp_path / NAMES[0]).read_bytes() == files[HALF]


@pytest.mark.parametrize("damage", ["gzip", "short map", "short mask"])
def test_damaged_files_of_the_archive_are_refused(archive, client, files, tmp_path, damage):
    if damage == "gzip":  # one bit in the middle
        content = bytearray(files[HALF])
        content[len(content) // 2] ^= 1
        archive.files[HALF] = bytes(content)
    elif damage == "short map":
        archive.files[HALF] = gzip.compress(gzip.decompress(files[HALF])[:-4])
    else:
        archive.files[MASK] = files[MASK][:-4]
    with pytest.raises(UserError, match=r"damaged|cut short"):
        fetch(archive, tmp_path, client)
    assert not (tmp_path / (NAMES[2] if damage == "short mask" else NAMES[0])).exists()


def test_downloads_at_once_are_bounded(files, tmp_path):
    many = {}
    for number in range(2000, 2012):
        many |= {path.replace("4321", str(number)): content for path, content in files.items() if "4321" in path}
        many[f"/structures/EMD-{number}/header/emd-{number}.xml"] = files[
            "/structures/EMD-4321/header/emd-4321.xml"
        ].replace(b"4321", str(number).encode())
    with serving(many) as archive:
        archive.pause = 0.02
        found = dict(fetch_entries(map(str, range(2000, 2012)), tmp_path, base_url=archive.url, jobs=3))
    assert len(found) == 12
    assert 2 <= archive.most_at_once <= 3


def test_entries_without_half_maps_and_unknown_ones_are_reported_and_skipped(archive, tmp_path):
    words = ["EMD-5555", "emd_4321", "9999", "EMD-1234", "-o", tmp_path, "--base-url", archive.url]
    outcome = run_crefjax("fetch", *words)
    assert outcome.status == 1
    assert "skipped EMD-5555: EMD-5555: expected two half-maps, its description names 0" in outcome.err
    assert "skipped EMD-9999: EMD-9999: expected its description" in outcome.err
    assert "2 of 4 entries were skipped" in outcome.err
    assert names(tmp_path) == ["EMD-1234", "EMD-4321"]
    assert "emd_1234_half_map_2.map.gz" in outcome.out
    assert f"crefjax denoise {tmp_path}/EMD-1234/emd_1234_half_map_1.map.gz" in outcome.err


def test_a_single_entry_that_cannot_be_used_is_an_error(archive, tmp_path):
    outcome = run_crefjax("fetch", "EMD-5555", "-o", tmp_path, "--base-url", archive.url)
    assert "expected two half-maps" in error_line(outcome.err, outcome.status)
    assert names(tmp_path) == []


def test_a_killed_download_is_continued(archive, files, tmp_path):
    archive.faults[HALF] += ["stall"]
    words = ["fetch", "EMD-1234", "-o", str(tmp_path), "--base-url", archive.url]
    process = subprocess.Popen([sys.executable, "-m", "crefjax", *words], stderr=subprocess.DEVNULL)
    assert archive.stalled.wait(30)
    part = tmp_path / "EMD-1234" / f".crefjax-{NAMES[0]}.part"
    while not part.exists() or part.stat().st_size < len(files[HALF]) // 2:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    archive.released.set()
    assert not (tmp_path / "EMD-1234" / NAMES[0]).exists()
    assert run_crefjax(*words).status == 0
    assert archive.asked("half_map_1")[-1]["Range"] == f"bytes={len(files[HALF]) // 2}-"
    assert names(tmp_path / "EMD-1234") == NAMES
    assert (tmp_path / "EMD-1234" / NAMES[0]).read_bytes() == files[HALF]


def test_unreachable_server_is_reported(tmp_path, client):
    with pytest.raises(UserError, match=r"given up after 6 attempts.*check the network"):
        fetch_entry("1234", tmp_path / "e", base_url="http://127.0.0.1:9", client=client)


@pytest.mark.parametrize("url", ["file:///etc", "ftp://ftp.ebi.ac.uk/pub", "/data", "https://"])
@pytest.mark.parametrize("option", ["--base-url", "--pdb-url"])
def test_addresses_other_than_http_are_refused(tmp_path, url, option):
    outcome = run_crefjax("fetch", "EMD-1234", "-o", tmp_path, option, url)
    assert "expected an address that begins with https://" in error_line(outcome.err, outcome.status)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file:///etc/passwd", "expected an address such as https"),
        ("/structures/EMD-1234/header/emd-1234.xml", "redirects too often"),
    ],
)
def test_redirections_to_files_and_in_circles_are_not_followed(archive, client, tmp_path, target, message):
    archive.faults["/structures/EMD-1234/header/emd-1234.xml"] += [f"302 {target}"] * 9
    with pytest.raises(UserError, match=message):
        fetch(archive, tmp_path / "e", client)


def test_a_redirection_to_another_place_is_followed(archive, client, files, tmp_path):
    archive.files["/elsewhere"] = files[HALF]
    archive.faults[HALF] += [f"302 {archive.url}/elsewhere"]
    fetch(archive, tmp_path, client)
    assert (tmp_path / NAMES[0]).read_bytes() == files[HALF]


def test_descriptions_that_are_not_xml_are_refused(archive, client, tmp_path):
    archive.files["/structures/EMD-1234/header/emd-1234.xml"] = b"<html><p>not closed</html>"
    with pytest.raises(UserError, match="expected EMDB's description as XML"):
        fetch(archive, tmp_path / "e", client)
    assert not (tmp_path / "e").exists()


def test_empty_elements_and_numbers_that_are_none_are_left_out(archive, client, tmp_path):
    path = "/structures/EMD-1234/header/emd-1234.xml"
    text = archive.files[path].replace(b">3.2<", b">NaN<").replace(b">1.5<", b">unknown<")
    archive.files[path] = text.replace(b">1ABC<", b"><")
    info = fetch(archive, tmp_path, client).info
    assert (info.resolution, info.voxel_size, info.pdb) == (None, None, ())


@pytest.mark.parametrize("name", ["", "EMD-", "6ABC", "EMD-12345678", "../1234"])
def test_invalid_entry_names_are_refused(name):
    with pytest.raises(UserError, match="EMD-3488"):
        entry_number(name)


def test_a_list_has_one_entry_in_each_line(tmp_path):
    (tmp_path / "list.txt").write_text("emdb_id,resolution\nEMD-1234,3.2\n\n# a comment\n4321  # another\n")
    assert read_list(tmp_path / "list.txt") == ["EMD-1234", "EMD-4321"]
    (tmp_path / "list.txt").write_text('\ufeff"emdb_id","title"\n"EMD-1234","phantom #1, empty"\n', encoding="utf-8")
    assert read_list(tmp_path / "list.txt") == ["EMD-1234"]
    (tmp_path / "list.txt").write_text("EMD-1234\nribosome\n")
    with pytest.raises(UserError, match="line 2: ribosome: expected an EMDB entry"):
        read_list(tmp_path / "list.txt")


QUERY = 'structure_determination_method:"singleParticle" AND resolution:[* TO 4]'


def test_a_query_gives_the_entries_of_the_search_interface(archive, client):
    archive.files[f"/search/{quoted(QUERY)}"] = b"emdb_id,resolution\r\nEMD-20026,3.9\r\nEMD-1234,\r\n"
    found = search_emdb(QUERY, search_url=f"{archive.url}/search", client=client)
    assert found == [("EMD-1234", None), ("EMD-20026", 3.9)]
    path, headers = archive.requests[-1]
    assert path.startswith(f"/search/{QUERY}?rows=1000000&fl=emdb_id")
    assert "wt=csv" in path
    assert headers["Accept"] == "text/csv"


def quoted(text):
    from urllib.parse import quote

    return quote(text, safe="")


@pytest.mark.parametrize("answer", [b"<html>", b"", b'{"error": 1}'])
def test_answers_that_are_no_table_are_refused(archive, client, answer):
    archive.files["/search/virus"] = answer
    with pytest.raises(UserError, match="expected a table with the column emdb_id"):
        search_emdb("virus", search_url=f"{archive.url}/search", client=client)


def test_a_query_is_saved_as_a_list_and_downloaded_from_it(archive, tmp_path):
    archive.files["/search/virus%0Aphantom"] = b"emdb_id,resolution\nEMD-4321,3\nEMD-1234,4\n"
    path = tmp_path / "list.txt"
    query = ("--query", "virus\nphantom", "--search-url", f"{archive.url}/search")
    outcome = run_crefjax("fetch", *query, "--save-list", path)
    assert outcome.status == 0, outcome.err
    assert path.read_text() == "# virus phantom\nEMD-1234\nEMD-4321\n"
    assert not archive.asked("structures")
    assert run_crefjax("fetch", "--list", path, "-o", tmp_path / "e", "--base-url", archive.url).status == 0
    assert names(tmp_path / "e") == ["EMD-1234", "EMD-4321"]


def test_nothing_to_fetch_is_a_mistake():
    outcome = run_crefjax("fetch")
    assert "found no entry" in error_line(outcome.err, outcome.status)


def test_maps_of_any_size_are_checked_without_reading_their_voxels(tmp_path):
    from crefjax.io.maps import check_map_file

    path = tmp_path / "a.map"
    path.write_bytes(map_bytes(tmp_path, 1, side=4) + b"more")
    check_map_file(path)
