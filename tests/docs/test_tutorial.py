"""The commands of the tutorial do what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page):
    """Language and text of every fenced block of a page."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)


def test_the_tutorial_runs(tmp_path):
    """In a folder of its own, with the commands of this environment on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = []
    for language, text in blocks("tutorial.md"):
        command = ["bash", "-ec", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert "no problem found" in said[1]
    for name in ("denoised.mrc", "denoised_local_agreement.mrc", "denoised_local_change.mrc", "report/index.html"):
        assert (tmp_path / name).is_file(), name
    expected, reached = (float(number) for number in re.findall(r"0\.\d{3}", said[-1]))
    assert reached > expected + 0.05


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_pages_link_to_what_is_there(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (DOCS / target).exists(), target


def test_the_readme_is_short_and_links_to_what_is_there():
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert "://" in target or (DOCS.parent / target).exists(), target
