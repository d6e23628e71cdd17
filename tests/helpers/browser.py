"""A browser without a window, in which a script looks at a page, driven by its DevTools protocol over two pipes."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SOFTWARE_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
NO_WEBGL = ("--disable-gpu", "--disable-3d-apis")
_PATIENCE = 120  # s, for one answer

_WATCH = """
const problems = [];
addEventListener('error', event => problems.push(event.message));
addEventListener('unhandledrejection', event => problems.push(String(event.reason)));
addEventListener('securitypolicyviolation', event => problems.push(`refused: ${event.blockedURI}`));
"""


class Tab:
    """A page in a browser."""

    def __init__(self, process, into, out):
        self.process, self.into, self.out = process, into, out
        self.number, self.received, self.session = 0, b"", None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)

    def call(self, method, **parameters):
        """Call a method of the protocol and return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.into, json.dumps(message).encode() + b"\0")
        answer = self.wait(lambda message: message.get("id") == self.number)
        assert "error" not in answer, answer
        return answer["result"]

    def wait(self, wanted):
        """Return the next message that is wanted."""
        end = time.monotonic() + _PATIENCE
        while True:
            while b"\0" in self.received:
                text, _, self.received = self.received.partition(b"\0")
                message = json.loads(text)
                if wanted(message):
                    return message
            assert select.select([self.out], [], [], max(end - time.monotonic(), 0))[0], "the browser does not answer"
            chunk = os.read(self.out, 1 << 20)
            assert chunk, f"the browser ended with status {self.process.wait()}"
            self.received += chunk

    def open(self, page, size=(1200, 900), dark=False):
        """Load a page from a file in a window of a size in CSS pixels."""
        width, height = size
        mobile = width < 500
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=f"file://{page}")
        self.wait(lambda message: message.get("method") == "Page.loadEventFired")

    def run(self, body):
        """Return what the body of an asynchronous function in JavaScript returns."""
        expression = f"(async () => {{ {body} }})()"
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def problems(self):
        """Return the errors of the page, and the addresses that its policy refused."""
        return self.run("return problems")

    def screenshot(self):
        """Return the bytes of a PNG file."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])


@contextmanager
def browser(folder, flags=NO_WEBGL):
    """Start a browser and give a tab; skips the test where there is none.

    Args:
        folder: for the browser's profile.
        flags: of the browser.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"needs a browser, one of {', '.join(BROWSERS)}, and found none")
    ends = [*os.pipe(), *os.pipe()]
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]  # away from 3 and 4, which the browser uses
    for end in ends:
        os.close(end)
    commands, into, out, answers = high
    redirect = f'exec "$@" 3<&{commands} 4>&{answers} 2>/dev/null'
    words = [program, "--headless", "--no-sandbox", "--remote-debugging-pipe", f"--user-data-dir={folder}/profile"]
    process = subprocess.Popen(["bash", "-c", redirect, "bash", *words, *flags], pass_fds=(commands, answers))
    os.close(commands)
    os.close(answers)
    try:
        yield Tab(process, into, out)
    finally:
        os.close(into)  # which ends the browser
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(out)
