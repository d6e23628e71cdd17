"""Downloads from a local server with the layout of EMDB's archive."""

import functools
import gzip
import http.server
import threading

import pytest

from crefjax.errors import UserError
from crefjax.io.emdb import entry_number, fetch_entry

HALF = gzip.compress(b"half-map " * 1000)


ASKED = []


class Archive(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        ASKED.append(self.path)
        if "EMD-5555" in self.path:  # breaks off
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
        elif "EMD-6666" in self.path:
            self.send_error(503, "too busy")
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    root = tmp_path / "archive"
    for number in (1234, 4321):
        (root / f"structures/EMD-{number}/other").mkdir(parents=True)
        for half in (1, 2):
            (root / f"structures/EMD-{number}/other/emd_{number}_half_map_{half}.map.gz").write_bytes(HALF)
    (root / "structures/EMD-1234/masks").mkdir()
    (root / "structures/EMD-1234/masks/emd_1234_msk_1.map").write_bytes(b"mask")
    ASKED.clear()
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Archive, directory=root))
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    thread.join()
    running.server_close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_half_maps_and_mask_are_downloaded_unchanged(server, tmp_path):
    shares = []
    found = fetch_entry("EMD-1234", tmp_path / "entry", server=server, report=lambda *all_: shares.append(all_))
    assert names(tmp_path / "entry") == [
        "emd_1234_half_map_1.map.gz",
        "emd_1234_half_map_2.map.gz",
        "emd_1234_msk_1.map",
    ]
    assert [path.read_bytes() for path in found] == [HALF, HALF, b"mask"]
    assert shares[-1] == ("emd_1234_msk_1.map", 1.0)


def test_entry_without_a_mask_is_downloaded(server, tmp_path):
    assert len(fetch_entry("emd_4321", tmp_path, server=server + "/")) == 2


def test_existing_files_are_not_downloaded_again(server, tmp_path):
    (tmp_path / "emd_1234_half_map_1.map.gz").write_bytes(b"mine")
    fetch_entry("1234", tmp_path, server=server)
    assert (tmp_path / "emd_1234_half_map_1.map.gz").read_bytes() == b"mine"
    assert not any("half_map_1" in path for path in ASKED)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("EMD-9999", "no half-maps, or does not exist"),
        ("EMD-5555", "expected 1000 bytes, received 10|no connection"),
        ("EMD-6666", "503 too busy"),
    ],
)
def test_failed_download_leaves_nothing(server, tmp_path, entry, message):
    with pytest.raises(UserError, match=message) as caught:
        fetch_entry(entry, tmp_path / "entry", server=server)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "entry").exists()


def test_unreachable_server_is_reported(tmp_path):
    with pytest.raises(UserError, match="no connection"):
        fetch_entry("1234", tmp_path, server="http://127.0.0.1:9")


@pytest.mark.parametrize("name", ["", "EMD-", "6ABC", "EMD-12345678", "../1234"])
def test_invalid_entry_names_are_refused(name):
    with pytest.raises(UserError, match="EMD-3488"):
        entry_number(name)


def test_fetch_command(server, tmp_path, capsys):
    from crefjax.cli.main import main

    assert main(["fetch", "EMD-1234", "-o", str(tmp_path / "entry"), "--server", server]) == 0
    output = capsys.readouterr()
    assert "emd_1234_half_map_2.map.gz" in output.out
    assert "crefjax denoise" in output.err
    assert main(["fetch", "EMD-9999", "-o", str(tmp_path / "none"), "--server", server]) == 2
