"""Downloads over HTTP that continue where they broke off, are retried with growing pauses, and are checked.

A file is received under a hidden name, `.crefjax-NAME.part`, beside which a small JSON file keeps its address and what
the server said about it. It gets its own name only when it is complete and passed its check. So a file
under its own name is complete, however a download ended, and an incomplete one is continued by a Range request,
provided that the file on the server is still the same (RFC 9110, sections 13.1.5 and 14).
"""

import json
import os
import random
import re
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import urllib3

from crefjax import __version__
from crefjax.errors import CannotWriteError, UserError, path_error
from crefjax.io.files import sha256
from crefjax.utils.atomic import is_disk_full, write_json

_CHUNK = 2**18
_CONNECT_SECONDS, _READ_SECONDS = 30, 60  # without an answer, and without a byte
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # a later request may succeed
_MISSING = frozenset({404, 410})
_LARGEST_TEXT = 2**26  # bytes of an answer that is kept in memory


@dataclass(frozen=True)
class Retries:
    """How often a request is repeated, and how long the pauses between attempts are.

    Attributes:
        attempts: requests in a row that may bring nothing before the download is given up.
        first: pause after the first of them, seconds; each following one is twice as long, and all are up to a quarter
            longer at random, so that many clients do not come back at once.
        longest: longest pause, seconds, even if the server asks for a longer one.
    """

    attempts: int = 6
    first: float = 1.0
    longest: float = 120.0

    def pause(self, failures: int, asked: float | None) -> float:
        """Return the pause after some failures in a row, or the one that the server asked for if it is longer."""
        grown = self.first * 2 ** (failures - 1) * random.uniform(1, 1.25)
        return min(self.longest, max(grown, asked or 0))


@dataclass(frozen=True)
class Downloaded:
    """A file that is in its place.

    Attributes:
        path: the file.
        url: its address.
        bytes: its size.
        sha256: its checksum.
    """

    path: Path
    url: str
    bytes: int
    sha256: str


class _TryAgainError(Exception):
    """A request failed for a reason that may be temporary.

    Attributes:
        pause: seconds that the server asks to wait, or None.
    """

    def __init__(self, text: str, pause: float | None = None):
        super().__init__(text)
        self.pause = pause


class HttpClient:
    """Requests to one or a few servers, with a bounded number of connections to each."""

    def __init__(self, *, connections: int = 4, retries: Retries | None = None, sleep: Callable = time.sleep):
        """Open no connection yet.

        Args:
            connections: connections at once, to each server.
            retries: how often a request is repeated.
            sleep: waits for a number of seconds.
        """
        self._retries, self._sleep = retries or Retries(), sleep
        self._pool = urllib3.PoolManager(
            maxsize=connections,
            block=True,
            headers={"User-Agent": f"crefjax/{__version__} urllib3/{urllib3.__version__}"},
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            # Redirections are followed; everything else is repeated here, because a download continues in between.
            retries=urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5, raise_on_redirect=True),
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def read_text(self, url: str, *, accept: str = "*/*") -> str | None:
        """Return a small answer as text, or None if the server has no such file.

        Args:
            url: http or https.
            accept: media types for the `Accept` header.

        Raises:
            UserError: the server refused, could not be reached, or sent more than 64 MiB.
        """
        check_url(url)
        failures = 0
        while True:
            try:
                with self._request(url, {"Accept": accept}) as answer:
                    if answer.status in _MISSING:
                        return None
                    body = self._receive_text(answer, url)
                return body.decode("utf-8", errors="replace")
            except _TryAgainError as error:
                failures += 1
                self._wait(url, failures, error)

    def _receive_text(self, answer, url):
        parts, received = [], 0
        with _transfer_errors():
            for chunk in answer.stream(_CHUNK, decode_content=True):
                parts.append(chunk)
                received += len(chunk)
                if received > _LARGEST_TEXT:
                    raise UserError(f"{url}: expected a small text, found more than 64 MiB; check the address")
        return b"".join(parts)

    def download(
        self,
        url: str,
        path: Path,
        *,
        check: Callable[[Path], None] = lambda path: None,
        report: Callable[[float], None] = lambda share: None,
    ) -> Downloaded | None:
        """Download a file, continuing an earlier attempt; return None if the server has no such file.

        Args:
            url: http or https.
            path: where the file appears once it is complete; an existing file is replaced.
            check: raises UserError for a file, under its hidden name, that is not what it should be.
            report: called with the share that has been received, if the size is known.

        Raises:
            CannotWriteError: the file system refused.
            UserError: the server refused, could not be reached, or sent twice what `check` refuses.
        """
        check_url(url)
        part = _Part(path, url)
        failures = refused = 0
        while True:
            before = part.size
            try:
                if not self._receive(part, report):
                    return None
            except _TryAgainError as error:
                failures = 1 if part.size > before else failures + 1  # only attempts that brought nothing count
                self._wait(url, failures, error)
                continue
            try:
                check(part.path)
            except UserError as error:
                part.remove()  # perhaps it was pieced together from two
                refused += 1
                if refused == 2:
                    raise UserError(f"{url}: the file was downloaded twice and is damaged: {error.text}") from error
                continue
            return part.finish()

    def _receive(self, part, report):
        """Receive the rest of a file; return False if the server has no such file."""
        if part.is_complete:
            return True
        if part.size and not part.validator:  # nobody can tell whether it is still the same file
            part.remove()
        offset, headers = part.size, {"Accept-Encoding": "identity"}
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": part.validator}
        with self._request(part.url, headers) as answer:
            if answer.status in _MISSING:
                part.remove()
                return False
            if answer.status == 416 or (answer.status == 206 and _range_start(answer) != offset):
                part.remove()
                raise _TryAgainError("the server does not continue the file where it broke off")
            if answer.status == 200:
                part.start(answer)
            with part.opened() as stream, _transfer_errors():
                while chunk := answer.read1(_CHUNK, decode_content=False):  # as soon as there is something
                    part.write(stream, chunk)
                    if part.total:
                        report(min(1.0, part.size / part.total))
        if part.total and part.size != part.total:
            text = f"expected {part.total} bytes, received {part.size}"
            if part.size > part.total:
                part.remove()
            raise _TryAgainError(text)
        return True

    def _request(self, url, headers):
        """Return an answer whose status is final; its body is still to be read."""
        with _transfer_errors():
            try:
                answer = self._pool.request(
                    "GET", url, headers={**self._pool.headers, **headers}, preload_content=False
                )
            except urllib3.exceptions.MaxRetryError as error:
                if isinstance(error.reason, urllib3.exceptions.ResponseError):
                    raise UserError(f"{url}: the server redirects too often; check the address") from error
                raise _TryAgainError(_plain_reason(error.reason)) from error
            except urllib3.exceptions.LocationValueError as error:
                raise UserError(f"{url}: expected an address such as https://host/path; correct it") from error
        if answer.status in (200, 206, 416) or answer.status in _MISSING:
            return answer
        with suppress(urllib3.exceptions.HTTPError):
            answer.drain_conn()
        answer.release_conn()
        text = f"the server answered {answer.status} {answer.reason}".strip()
        if answer.status in _AGAIN:
            raise _TryAgainError(text, _retry_after(answer))
        raise UserError(f"{url}: {text}; check the address")

    def _wait(self, url, failures, error):
        if failures >= self._retries.attempts:
            raise UserError(
                f"{url}: given up after {failures} attempts ({error}); check the network, or try again later: the "
                "download continues where it broke off"
            ) from error
        self._sleep(self._retries.pause(failures, error.pause))


class _Part:
    """The received part of a file, under a hidden name, and what the server said about the file."""

    def __init__(self, path, url):
        self.final, self.url = path, url
        self.path = path.with_name(f".crefjax-{path.name}.part")
        self._about = path.with_name(f".crefjax-{path.name}.json")
        about = {}
        with suppress(OSError, ValueError):
            about = json.loads(self._about.read_text(encoding="utf-8"))
        self.size, self.total, self.validator = 0, about.get("bytes") or 0, about.get("validator")
        if about.get("url") == url and self.validator and self.path.is_file():
            self.size = self.path.stat().st_size
        if self.size > self.total > 0:
            self.size = 0

    @property
    def is_complete(self):
        return 0 < self.total == self.size

    def start(self, answer):
        """Start over with an answer that holds the whole file."""
        self.size, self.total = 0, int(answer.headers.get("Content-Length") or 0)
        etag = answer.headers.get("ETag", "")
        self.validator = etag if etag.startswith('"') else answer.headers.get("Last-Modified")  # weak ones do not help
        with self._disk_errors():
            self.path.unlink(missing_ok=True)
            write_json(self._about, {"url": self.url, "bytes": self.total, "validator": self.validator})

    @contextmanager
    def opened(self):
        with self._disk_errors():
            stream = open(self.path, "ab")  # noqa: SIM115 - closed below
        with stream:
            yield stream

    def write(self, stream, chunk):
        with self._disk_errors():
            stream.write(chunk)
            stream.flush()
        self.size += len(chunk)

    def finish(self):
        with self._disk_errors():
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())
            found = Downloaded(self.final, self.url, self.path.stat().st_size, sha256(self.path))
            os.replace(self.path, self.final)
            self._about.unlink(missing_ok=True)
        return found

    def remove(self):
        self.size, self.total, self.validator = 0, 0, None
        with self._disk_errors():
            self.path.unlink(missing_ok=True)
            self._about.unlink(missing_ok=True)

    @contextmanager
    def _disk_errors(self):
        try:
            yield
        except UserError as error:  # of the JSON file
            raise CannotWriteError(error.text, path=error.path) from error
        except OSError as error:
            what = "no space left" if is_disk_full(error) else "cannot be written"
            text = f"{what} ({error.strerror or error}); make room or check the disk, and run the same command again"
            raise CannotWriteError(text, path=self.final) from error


@contextmanager
def _transfer_errors():
    """Turn the errors of a connection, also in the middle of a body, into `_TryAgainError`."""
    try:
        yield
    except urllib3.exceptions.LocationValueError:
        raise
    except urllib3.exceptions.HTTPError as error:
        raise _TryAgainError(_plain_reason(error)) from error


def _plain_reason(error):
    """Return an error of urllib3 in a few words, without the addresses of its objects."""
    text = " ".join(str(error).split())
    text = re.sub(r"^<?\(?[\w.]*(HTTPS?Connection|Pool)[^:]*:\s*", "", text)
    return text.strip("()") or type(error).__name__


def _range_start(answer):
    """Return the first byte of a part, as its `Content-Range` says, or None."""
    match = re.match(r"bytes (\d+)-\d+/", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _retry_after(answer):
    """Return the seconds that a server asks to wait, given as a number or a date."""
    try:
        return urllib3.Retry().get_retry_after(answer)
    except urllib3.exceptions.InvalidHeader:
        return None


def check_url(url: str) -> None:
    """Raise UserError unless an address is one of http or https, with a host."""
    try:
        parts = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError:
        parts = urllib3.util.Url()
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UserError(f"{url}: expected an address that begins with https:// or http://; correct it")


def describe_existing(path: Path, url: str) -> Downloaded:
    """Describe an existing file as if it had been downloaded.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return Downloaded(path, url, path.stat().st_size, sha256(path))
    except OSError as error:
        raise path_error(path, f"cannot be read ({error.strerror}); check its permissions and the disk") from error
