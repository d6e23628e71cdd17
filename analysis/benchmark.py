"""All studies over many entries in one run: one table and one page of figures.

    python -m analysis.benchmark ENTRY... -o DIR [--methods A,B] [--jobs N] [--workdirs WORKDIR ...]

With the folders of training runs, their convergence is part of it. Every entry is read once. It writes what each study
writes, and

    benchmark.csv           a row for each entry and method, the numbers of all studies
    benchmark.md            the table to read: medians over entries with 95 % intervals, and what differs
    benchmark.html          the same with the table of all entries and the figures, in one file that opens offline
    benchmark.json          settings, versions, what was left out, medians, intervals, paired tests
    benchmark.png, .svg     a box for each method and headline
"""

import base64
import html
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from analysis import against_truth, bias_snr, convergence, cref_rmse, fsc_half, map_model, reference_map
from analysis.files import put, run_study
from analysis.over_entries import Headline, Run, check_entries_output, entries_parser, run
from analysis.subjects import FULL
from analysis.tables import box_plot, methods_of, summarize, table, write_study
from crefjax import __version__
from crefjax.plotting import figure_bytes

NAME = "benchmark"
STUDIES = (reference_map.STUDY, cref_rmse.STUDY, fsc_half.STUDY, bias_snr.STUDY, against_truth.STUDY, map_model.STUDY)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ccc; padding: 3px 9px; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
img { max-width: 100%; }
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run all studies; returns 0, or 2 after a mistake of the user's, told in one line."""
    parser = entries_parser(NAME, __doc__.splitlines()[0])
    parser.add_argument("--workdirs", nargs="+", default=[], metavar="WORKDIR", help="folders of training runs")
    return run_study(NAME, parser, _run, argv)


def _run(arguments):
    check_entries_output(NAME, arguments)
    folder = Path(arguments.output)
    trainings = convergence.read_runs(arguments.workdirs)
    found = run(STUDIES, arguments)
    settings = {"entries": arguments.entries, "methods": arguments.methods}
    used = [study for study in STUDIES if found.rows[study.name]]
    for study in used:
        write_study(study, found, folder, settings)
    pictures = [(study.name, study.about) for study in used]
    if trainings:
        convergence.write_convergence(trainings, folder, arguments.workdirs)
        pictures.append((convergence.NAME, convergence.__doc__.splitlines()[0]))
    joined = join_rows(found)
    headlines = [one for study in used for one in study.headlines]
    summary = summarize(headlines, joined)
    left_out = [{"entry": entry, "study": study, "why": why} for entry, study, why in found.left_out]
    report = {"crefjax": __version__, "seconds": round(found.seconds, 1), "settings": settings}
    put(
        folder / f"{NAME}.json",
        (json.dumps(report | {"left_out": left_out, "summary": summary}, indent=2) + "\n").encode(),
    )
    put(folder / f"{NAME}.csv", table(joined).encode())
    text = markdown(headlines, summary, joined)
    put(folder / f"{NAME}.md", text.encode())
    for kind in ("png", "svg"):
        put(folder / f"{NAME}.{kind}", figure_bytes(_figure(headlines, joined), kind))
    put(folder / f"{NAME}.html", _page(headlines, summary, joined, left_out, folder, pictures).encode())
    print(text)
    entries = len({row["entry"] for row in joined})
    told = f"{entries} {'entry' if entries == 1 else 'entries'}, {len(methods_of(joined))} methods"
    print(f"{told}; look at {folder / NAME}.html")
    for one in left_out:
        print(f"left out: {one['entry']}{': ' + one['study'] if one['study'] else ''}: {one['why']}")
    return 0


def join_rows(found: Run) -> list[dict]:
    """One row for each entry and method with the numbers of all studies."""
    joined: dict[tuple[str, str], dict] = {}
    for rows in found.rows.values():
        for row in rows:
            joined.setdefault((row["entry"], row["method"]), {}).update(row)
    for row in joined.values():
        row.pop("curves", None)
    order = list(dict.fromkeys(entry for entry, _ in joined))
    return sorted(joined.values(), key=lambda row: (order.index(row["entry"]), row["method"] != FULL))


def _told(found, digits):
    if not found["count"]:
        return ""
    return (
        f"{found['median']:.{digits}f} ({found['low']:.{digits}f} to {found['high']:.{digits}f}), n = {found['count']}"
    )


def _difference(found, digits):
    against = found["against"].get(FULL)
    if not against or not against["difference"]["count"]:
        return ""
    p = "" if against["p"] is None else f", p = {against['p']:.2g}"
    return f"{against['difference']['median']:+.{digits}f}{p}"


def _cells(headlines: Sequence[Headline], summary: dict, rows: list[dict]):
    """Header and lines of the summary, as text."""
    shown = [one for one in headlines if any(m["count"] for m in summary[one.key]["methods"].values())]
    header = ["method"]
    for one in shown:
        header += [f"{one.label}, {'more' if one.better > 0 else 'less'} is better", f"against the {FULL}"]
    lines = []
    for method in methods_of(rows):
        line = [method]
        for one in shown:
            found = summary[one.key]["methods"][method]
            line += [_told(found, one.digits), _difference(found, one.digits)]
        lines.append(line)
    return header, lines


def markdown(headlines: Sequence[Headline], summary: dict, rows: list[dict]) -> str:
    """A table for each headline: a line for each method."""
    text = []
    for one in headlines:
        found = {name: m for name, m in summary[one.key]["methods"].items() if m["count"]}
        if not found:
            continue
        way = "more" if one.better > 0 else "less"
        text += [f"**{one.label}** ({way} is better)", ""]
        text += [
            f"| method | median (95 %) | entries | against the {FULL} | against crefdenoiser |",
            "|---|---|---|---|---|",
        ]
        for name, m in found.items():
            d = one.digits
            line = f"| {name} | {m['median']:.{d}f} ({m['low']:.{d}f} to {m['high']:.{d}f}) | {m['count']} |"
            for other in (FULL, "crefdenoiser"):
                against = m["against"].get(other)
                told = ""
                if against and against["difference"]["count"]:
                    told = f"{against['difference']['median']:+.{d}f} ({against['above']} up, {against['below']} down"
                    told += ")" if against["p"] is None else f", p = {against['p']:.2g})"
                line += f" {told} |"
            text.append(line)
        text.append("")
    return "\n".join(text)


def _figure(headlines, rows):
    shown = [one for one in headlines if any(row.get(one.key) is not None for row in rows)]
    columns = 3
    lines = -(-len(shown) // columns)
    width = max(4.5, 0.75 * len(methods_of(rows)))
    page = Figure(figsize=(columns * width, 3.8 * lines), layout="constrained")
    panels = page.subplots(lines, columns, squeeze=False).ravel()
    for axes, headline in zip(panels, shown, strict=False):
        box_plot(axes, rows, headline)
    for axes in panels[len(shown) :]:
        axes.remove()
    return page


def _page(headlines, summary, rows, left_out, folder, pictures):
    header, lines = _cells(headlines, summary, rows)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    every = [[_number(row.get(key)) for key in keys] for row in rows]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>crefjax benchmark</title>",
        f"<style>{_STYLE}</style><h1>Benchmark: {len({row['entry'] for row in rows})} entries</h1>",
        f"<p>crefjax {__version__}. Medians over entries, with 95 % bootstrap intervals; p by Wilcoxon's signed-rank "
        "test over the entries that both methods have. An FSC between denoised half-maps is in none of this: it is no "
        "resolution.</p>",
        _html_table(header, lines),
        _image(folder / f"{NAME}.png", "A box for each method and number"),
    ]
    for name, about in pictures:
        parts += [f"<h2>{html.escape(about)}</h2>", _image(folder / f"{name}.png", about)]
    parts += ["<h2>Every entry and method</h2>", _html_table(keys, every)]
    if left_out:
        items = "".join(f"<li>{html.escape(': '.join(filter(None, one.values())))}</li>" for one in left_out)
        parts.append(f"<h2>Left out</h2><ul>{items}</ul>")
    return "\n".join(parts) + "\n"


def _number(value):
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _html_table(header, lines):
    head = "".join(f"<th>{html.escape(str(one))}</th>" for one in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(one))}</td>" for one in line) + "</tr>" for line in lines)
    return f"<table><tr>{head}</tr>{body}</table>"


def _image(path, words):
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(words, quote=True)}" src="data:image/png;base64,{data}">'


if __name__ == "__main__":
    sys.exit(main())
