"""A server on the loopback address that has the layout of EMDB's archive, and does on request what bad servers do."""

import contextlib
import gzip
import http.server
import threading
import urllib.parse
from collections import Counter, defaultdict
from email.utils import formatdate

import mrcfile
import numpy as np

HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<emd emdb_id="EMD-{number}" version="3.0.4.1">
  <admin><title>Phantom {number}</title></admin>
  <crossreferences><pdb_list><pdb_reference id="1"><pdb_id>1ABC</pdb_id></pdb_reference></pdb_list></crossreferences>
  <structure_determination_list><structure_determination structure_determination_id="1">
    <method>singleParticle</method>
    <singleparticle_processing image_processing_id="1"><final_reconstruction>
      <applied_symmetry><point_group>D2</point_group></applied_symmetry>
      <resolution res_type="BY AUTHOR" units="Å">3.2</resolution>
      <resolution_method>FSC 0.143 CUT-OFF</resolution_method>
    </final_reconstruction></singleparticle_processing>
  </structure_determination></structure_determination_list>
  <map format="CCP4" size_kbytes="32"><file>emd_{number}.map.gz</file>
    <pixel_spacing><x units="Å">1.5</x><y units="Å">1.5</y><z units="Å">1.5</z></pixel_spacing>
    <contour_list><contour primary="false"><level>0.9</level></contour>
      <contour primary="true"><level>0.025</level><source>AUTHOR</source></contour></contour_list></map>
  <interpretation>{half_maps}{masks}</interpretation>
</emd>
"""
_HALF_MAPS = "".join(
    f"<half_map format='CCP4'><file>emd_{{number}}_half_map_{half}.map.gz</file></half_map>" for half in (1, 2)
)
_MASK = "<segmentation_list><segmentation><file>emd_{number}_msk_1.map</file></segmentation></segmentation_list>"


def header(number, *, half_maps=True, mask=True):
    """EMDB's description of an entry, as far as it is read."""
    halves = f"<half_map_list>{_HALF_MAPS.format(number=number)}</half_map_list>" if half_maps else ""
    return HEADER.format(number=number, half_maps=halves, masks=_MASK.format(number=number) if mask else "").encode()


def map_bytes(folder, seed, side=16):
    """A map of random voxels as the bytes of its file."""
    path = folder / f"map_{seed}_{side}.mrc"
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.random.default_rng(seed).standard_normal((side,) * 3).astype(np.float32))
        mrc.set_volume()
        mrc.voxel_size = 1.5
    return path.read_bytes()


def entry_files(folder, number, **parts):
    """The files of an entry by their path on the server."""
    base = f"/structures/EMD-{number}"
    files = {f"{base}/header/emd-{number}.xml": header(number, **parts)}
    if parts.get("half_maps", True):
        for half in (1, 2):
            content = gzip.compress(map_bytes(folder, [number, half]), mtime=0)
            files[f"{base}/other/emd_{number}_half_map_{half}.map.gz"] = content
    if parts.get("mask", True):
        files[f"{base}/masks/emd_{number}_msk_1.map"] = map_bytes(folder, [number, 3])
    files[f"{base}/map/emd_{number}.map.gz"] = gzip.compress(map_bytes(folder, [number, 4]), mtime=0)
    return files


class Archive:
    """What a server has, how it misbehaves, and what it was asked.

    Attributes:
        files: content by path.
        etags: ETag by path; a file without one has a date of last change.
        faults: by path, what happens at its next requests, in turn: `cut N` sends N bytes and breaks off; `stall`
            sends half and waits; a number is a status, `429 S` one with Retry-After, `302 URL` one with a Location;
            `html` a page; `ignore range`.
        requests: path and headers of every request.
        most_at_once: largest number of requests for files at one time.
    """

    def __init__(self, files):
        self.files, self.etags, self.faults = dict(files), {}, defaultdict(list)
        self.requests, self.most_at_once, self._active, self._lock = [], 0, 0, threading.Lock()
        self.stalled, self.released, self.pause = threading.Event(), threading.Event(), 0.0
        self.url = None

    def asked(self, part):
        """Return the headers of the requests whose path contains a text."""
        return [headers for path, headers in self.requests if part in path]

    def counts(self):
        """Return the number of requests by path."""
        return Counter(path for path, _ in self.requests)

    @contextlib.contextmanager
    def counted(self):
        with self._lock:
            self._active += 1
            self.most_at_once = max(self.most_at_once, self._active)
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        archive, path = self.server.archive, self.path
        archive.requests.append((urllib.parse.unquote(path), dict(self.headers)))
        with archive.counted():
            if archive.pause:
                threading.Event().wait(archive.pause)
            faults = archive.faults[path]
            self._answer(archive, path, faults.pop(0) if faults else "")

    def _answer(self, archive, path, fault):
        key = path.split("?")[0]
        if fault[:3].isdigit():
            words = fault.split()
            name = "Location" if words[0] == "302" else "Retry-After"
            extra = {name: words[1]} if len(words) > 1 else {}
            return self._send(int(words[0]), b"busy", extra)
        if fault == "html":
            return self._send(200, b"<html><body>Welcome</body></html>", {"Content-Type": "text/html"})
        if key not in archive.files:
            return self._send(404, b"no such file", {})
        content, first, status = archive.files[key], 0, 200
        etag, changed = archive.etags.get(key), formatdate(1.7e9, usegmt=True)
        extra = {"ETag": etag} if etag else {"Last-Modified": changed}
        wanted = self.headers.get("Range")
        if wanted and fault != "ignore range" and self.headers.get("If-Range") in (etag, None if etag else changed):
            first, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
            extra["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        body = content[first:]
        if fault.startswith("cut"):
            return self._send(status, body[: int(fault.split()[1])], extra, length=len(body), close=True)
        if fault == "stall":
            self._send(status, body[: len(body) // 2], extra, length=len(body))
            self.wfile.flush()
            archive.stalled.set()
            archive.released.wait(30)
            self.close_connection = True
            return None
        return self._send(status, body, extra)

    def _send(self, status, body, extra, length=None, close=False):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in extra.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.close_connection or close

    def log_message(self, *_):
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_):
        """A client that goes away is no error of the server."""


@contextlib.contextmanager
def serving(files):
    """Serve files on the loopback address within the `with`; give the `Archive`."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.archive = archive = Archive(files)
    archive.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
