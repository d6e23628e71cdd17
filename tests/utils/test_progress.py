import io

from crefjax.utils import progress
from crefjax.utils.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_terminal_shows_a_bar():
    stream = Terminal()
    with progress_bar("denoising", stream) as advance:
        advance(0.5)
        advance(1.0)
    assert "denoising 100%" in stream.getvalue()


def test_pipe_gets_a_plain_line_every_ten_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with progress_bar("denoising", stream) as advance:
        for second in range(1, 31):
            now[0] = float(second)
            advance(second / 40)
    # at 10, 20 and 30 of 40 seconds
    assert stream.getvalue().splitlines() == [
        "denoising: 25% done, about 30 s left",
        "denoising: 50% done, about 20 s left",
        "denoising: 75% done, about 10 s left",
    ]
