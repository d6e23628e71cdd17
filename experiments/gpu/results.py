"""`results.json` and `results.md`, written anew, whole, whenever something is known."""

import json
import math
from pathlib import Path

from analysis.files import put

# TFLOP/s by the vendor's datasheets: float32 outside the tensor cores, dense bfloat16 inside.
_HOPPER = {"float32": 67.0, "bfloat16": 989.0}
PEAKS = {"NVIDIA H100 80GB HBM3": _HOPPER, "NVIDIA H200": _HOPPER}
_COLUMNS = {
    "what": "", "dtype": "type", "batch": "batch", "seconds": "seconds", "per_second": "patches/s",
    "device_gib": "peak on the device, GiB", "tflops": "TFLOP/s", "of_peak": "of the device's peak",
}  # fmt: skip


class Results:
    """Everything that is known so far.

    Attributes:
        content: what `results.json` has: `machine`; `parts`, each with `name`, `status`, `seconds` and `said`;
            `benchmarks`, rows; `rehearsal`, rows; `training`.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self.content = {"machine": {}, "parts": [], "rehearsal": [], "benchmarks": [], "training": {}}

    def part(self, name: str, status: str, seconds: float = 0.0, said: str = "") -> None:
        """Note how a part ended, or that it runs; the last note of a name counts."""
        parts = self.content["parts"]
        row = {"name": name, "status": status, "seconds": round(seconds, 1), "said": said}
        names = [one["name"] for one in parts]
        if name in names:
            parts[names.index(name)] = row
        else:
            parts.append(row)
        self.save()

    def add(self, key: str, rows: list[dict]) -> None:
        """Add rows to `rehearsal` or `benchmarks`, with the share of the device's peak where that is known."""
        kind = self.content["machine"].get("device", "")
        self.content[key] += [with_peak(row, kind) for row in rows]
        self.save()

    def save(self) -> None:
        """Write both files."""
        put(self._folder / "results.json", (json.dumps(self.content, indent=1) + "\n").encode())
        put(self._folder / "results.md", markdown(self.content).encode())


def with_peak(row: dict, kind: str) -> dict:
    """A row with `tflops`, and `of_peak` on a device whose peak is known.

    Args:
        row: with `flops`, floating point operations as plain convolutions count them, and `seconds`; others stay.
        kind: of the device, as JAX calls it.
    """
    if not row.get("flops") or not row.get("seconds"):
        return row
    tflops = row["flops"] / row["seconds"] / 1e12
    peak = PEAKS.get(kind, {}).get(row.get("dtype"))
    return row | {"tflops": tflops} | ({"of_peak": tflops / peak} if peak else {})


def markdown(content: dict) -> str:
    """The tables to read."""
    machine = content["machine"]
    lines = [", ".join(f"{name} {value}" for name, value in machine.items()), ""] if machine else []
    lines += ["| part | status | seconds | |", "|---|---|---|---|"]
    for one in content["parts"]:
        lines.append(f"| {one['name']} | {one['status']} | {one['seconds']:.0f} | {_cell(one['said'])} |")
    for title, key in (("Rehearsal of training", "rehearsal"), ("Benchmarks", "benchmarks")):
        if content[key]:
            lines += ["", title, "", *_table(content[key])]
    if content["training"]:
        lines += ["", "Training", ""]
        lines += [f"- {name.replace('_', ' ')}: {_number(value)}" for name, value in content["training"].items()]
    return "\n".join(lines) + "\n"


def _table(rows):
    names = [name for name in _COLUMNS if name == "what" or any(name in row for row in rows)]
    failed = any("failed" in row for row in rows)
    yield "| " + " | ".join([_COLUMNS[name] for name in names] + ["failed"] * failed) + " |"
    yield "|---" * (len(names) + failed) + "|"
    for row in rows:
        cells = [f"{row[name]:.1%}" if name == "of_peak" and name in row else _number(row.get(name)) for name in names]
        yield "| " + " | ".join(cells + [_cell(str(row.get("failed", "")))] * failed) + " |"


def _number(value):
    if isinstance(value, float):
        return f"{value:.3g}" if not math.isfinite(value) or abs(value) < 100 else f"{value:.0f}"
    return "" if value is None else str(value)


def _cell(text):
    return text.replace("|", "\\|").replace("\n", " ")
