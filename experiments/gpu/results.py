"""The results, `results.json` and `results.md`, which are rewritten after every part."""

import json
import math
from pathlib import Path

from crefjax.utils.atomic import write_bytes

# TFLOP/s, from the datasheets of the vendor: float32 without tensor cores, dense bfloat16 with them.
_HOPPER = {"float32": 67.0, "bfloat16": 989.0}
PEAKS = {"NVIDIA H100 80GB HBM3": _HOPPER, "NVIDIA H200": _HOPPER}
_COLUMNS = {
    "what": "", "dtype": "type", "batch": "batch", "seconds": "seconds", "per_second": "patches/s",
    "device_gib": "peak on the device, GiB", "tflops": "TFLOP/s", "of_peak": "of the device's peak",
}  # fmt: skip


class Results:
    """The results so far.

    Attributes:
        content: Content of `results.json`: `machine`; `parts`, each with `name`, `status`, `seconds`, and `message`;
            rows of `benchmarks` and `rehearsal`; `training`.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self.content = {"machine": {}, "parts": [], "rehearsal": [], "benchmarks": [], "training": {}}

    def part(self, name: str, status: str, seconds: float = 0.0, message: str = "") -> None:
        """Record the status of a part; a later record replaces an earlier one of the same name."""
        parts = self.content["parts"]
        row = {"name": name, "status": status, "seconds": round(seconds, 1), "message": message}
        names = [part["name"] for part in parts]
        if name in names:
            parts[names.index(name)] = row
        else:
            parts.append(row)
        self.save()

    def add(self, key: str, rows: list[dict]) -> None:
        """Add rows to `rehearsal` or `benchmarks`, with the share of the peak of the device if that is known."""
        kind = self.content["machine"].get("device", "")
        self.content[key] += [with_peak(row, kind) for row in rows]
        self.save()

    def save(self) -> None:
        """Write both files."""
        write_bytes(self._folder / "results.json", (json.dumps(self.content, indent=1) + "\n").encode())
        write_bytes(self._folder / "results.md", markdown(self.content).encode())


def with_peak(row: dict, kind: str) -> dict:
    """Return a row with `tflops`, and with `of_peak` for a device whose peak is known.

    Args:
        row: Row with `flops`, the floating point operations of plain convolutions, and `seconds`.
        kind: Kind of the device, as JAX calls it.
    """
    if not row.get("flops") or not row.get("seconds"):
        return row
    tflops = row["flops"] / row["seconds"] / 1e12
    peak = PEAKS.get(kind, {}).get(row.get("dtype"))
    return row | {"tflops": tflops} | ({"of_peak": tflops / peak} if peak else {})


def markdown(content: dict) -> str:
    """Return the results as Markdown tables."""
    machine = content["machine"]
    lines = [", ".join(f"{name} {value}" for name, value in machine.items()), ""] if machine else []
    lines += ["| part | status | seconds | |", "|---|---|---|---|"]
    for part in content["parts"]:
        lines.append(f"| {part['name']} | {part['status']} | {part['seconds']:.0f} | {_cell(part['message'])} |")
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
