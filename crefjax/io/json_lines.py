"""Files of JSON lines, which a run adds to."""

import json
from pathlib import Path


def read_json_lines(path: Path) -> list[dict]:
    """The whole lines of a file of JSON lines; what was cut off at its end is left out, and no file has no lines."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows
