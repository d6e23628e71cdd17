"""Files of FSC curves that other programs read: the XML of EMDB, and CSV."""

import csv
import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence


def fsc_xml(frequency: Sequence[float], fsc: Sequence[float], title: str) -> bytes:
    """Return an FSC curve as the XML that EMDB takes for a deposition, with the axes as RELION labels them.

    The root `fsc` has the attributes `title`, `xaxis`, and `yaxis`, and for every shell a `coordinate` with `x` and
    `y`.

    Args:
        frequency: of every shell, 1/Å.
        fsc: of every shell.
        title: of the curve.
    """
    root = ElementTree.Element("fsc", title=title, xaxis="Resolution (A-1)", yaxis="Correlation Coefficient")
    for x, y in zip(frequency, fsc, strict=True):
        coordinate = ElementTree.SubElement(root, "coordinate")
        ElementTree.SubElement(coordinate, "x").text = f"{x:.7f}"
        ElementTree.SubElement(coordinate, "y").text = f"{y:.6f}"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True) + b"\n"


def csv_table(columns: Mapping[str, Sequence[float | int | None]]) -> bytes:
    """Return columns of one length as CSV with a line of names: numbers to seven digits, None as an empty field.

    Args:
        columns: by name, in order.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(f"{value:.7g}" if isinstance(value, float) else value for value in row)
    return stream.getvalue().encode()
