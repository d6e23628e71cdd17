"""The tutorial runs as written, and links and the README are in order."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.document_commands import PAGES, ROOT, blocks


@pytest.mark.slow
def test_tutorial_runs_and_the_denoised_map_is_closer_to_the_truth(tmp_path):
    """Its commands run in a folder of their own, with those of this environment on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    outputs = []
    for _, language, text in blocks(ROOT / "docs/tutorial.md"):
        command = ["bash", "-ec", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert "no problem found" in outputs[1]
    for name in ("denoised.mrc", "denoised_local_agreement.mrc", "denoised_local_change.mrc", "report/index.html"):
        assert (tmp_path / name).is_file(), name
    expected, reached = (float(number) for number in re.findall(r"0\.\d{3}", outputs[-1]))
    assert reached > expected + 0.05


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_pages_link_to_existing_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_readme_has_at_most_150_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
