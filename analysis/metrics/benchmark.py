"""Run all studies over many entries at once, for one table and one page of figures.

    python -m analysis benchmark ENTRY... -o DIR [--methods A,B] [--jobs N] [--workdirs WORKDIR ...]

With the folders of training runs, their convergence is part of it. Every entry is read once. It writes what each study
of this folder writes, and

    benchmark.csv           a row for each entry and method, the numbers of all studies
    benchmark.md            the table to read: medians over entries with 95 % intervals, and differences
    benchmark.html          the same with the table of all entries and the figures, in one file that opens offline
    benchmark.json          settings, versions, skipped entries, medians, intervals, paired tests
    benchmark.png, .svg     a box for each method and headline
"""

import base64
import html
from collections.abc import Sequence

from matplotlib.figure import Figure

from analysis.framework.discovery import find_studies, load_study
from analysis.framework.entry_study import EntryResults, EntryStudy, add_entry_arguments, measure_entries
from analysis.framework.output import FULL, Headline, Output, box_plot, methods_of, summarize, table
from analysis.framework.study import Study
from analysis.weights import convergence
from crefjax import __version__

_FIRST = ("reference_fsc", "cref_rmse", "half_map_fsc", "snr_and_bias", "truth_error", "model_fsc")  # in the tables
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ccc; padding: 3px 9px; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
img { max-width: 100%; }
"""


def entry_studies() -> list[EntryStudy]:
    """Return all studies over entries, in the order of the tables."""
    names = {file.name: file.module for file in find_studies("metrics") if file.module != __name__}
    return [load_study(names[name]) for name in dict.fromkeys((*_FIRST, *names))]


def _add_arguments(parser):
    add_entry_arguments(parser)
    parser.add_argument("--workdirs", nargs="+", default=[], metavar="WORKDIR", help="folders of training runs")


def _run(arguments, output):
    trainings = convergence.read_runs(arguments.workdirs)
    studies = entry_studies()
    results = measure_entries(studies, arguments)
    settings = {"entries": arguments.entries, "methods": arguments.methods}
    studies = [study for study in studies if results.rows[study.name]]
    for study in studies:
        study.write(results, output._replace(name=study.name), settings)
    pictures = [(study.name, study.description) for study in studies]
    if trainings:
        convergence.write(trainings, output._replace(name=convergence.STUDY.name), arguments.workdirs)
        pictures.append((convergence.STUDY.name, convergence.STUDY.description))
    rows = join_rows(results)
    headlines = [headline for study in studies for headline in study.headlines]
    summary = summarize(headlines, rows)
    left_out = [{"entry": entry, "study": study, "why": why} for entry, study, why in results.skipped]
    output.write_json({"settings": settings, "left_out": left_out, "summary": summary}, seconds=results.seconds)
    output.write("csv", table(rows))
    text = markdown(headlines, summary)
    output.write("md", text)
    output.write_figure(_figure(headlines, rows))
    output.write("html", _page(headlines, summary, rows, left_out, output, pictures))
    print(text)
    entries = len({row["entry"] for row in rows})
    counts = f"{entries} {'entry' if entries == 1 else 'entries'}, {len(methods_of(rows))} methods"
    print(f"{counts}; look at {output.folder / output.name}.html")
    for skipped in left_out:
        print("left out: " + ": ".join(filter(None, skipped.values())))


def join_rows(results: EntryResults) -> list[dict]:
    """Return one row for each entry and method with the numbers of all studies."""
    joined: dict[tuple[str, str], dict] = {}
    for rows in results.rows.values():
        for row in rows:
            joined.setdefault((row["entry"], row["method"]), {}).update(row)
    for row in joined.values():
        row.pop("curves", None)
    order = list(dict.fromkeys(entry for entry, _ in joined))
    return sorted(joined.values(), key=lambda row: (order.index(row["entry"]), row["method"] != FULL))


def _interval(numbers, digits):
    return f"{numbers['median']:.{digits}f} ({numbers['low']:.{digits}f} to {numbers['high']:.{digits}f})"


def _difference(against, digits):
    p = "" if against["p"] is None else f", p = {against['p']:.2g}"
    return f"{against['difference']['median']:+.{digits}f}{p}"


def _cells(headlines: Sequence[Headline], summary: dict, rows: list[dict]):
    """Return the header and the lines of the summary, as text."""
    shown = [headline for headline in headlines if any(m["count"] for m in summary[headline.key]["methods"].values())]
    header = ["method"]
    for headline in shown:
        header += [f"{headline.label}, {'more' if headline.better > 0 else 'less'} is better", f"against the {FULL}"]
    lines = []
    for method in methods_of(rows):
        line = [method]
        for headline in shown:
            numbers = summary[headline.key]["methods"][method]
            against = numbers["against"].get(FULL)
            known = against and against["difference"]["count"]
            line += [
                f"{_interval(numbers, headline.digits)}, n = {numbers['count']}" if numbers["count"] else "",
                _difference(against, headline.digits) if known else "",
            ]
        lines.append(line)
    return header, lines


def markdown(headlines: Sequence[Headline], summary: dict) -> str:
    """Return a table for each headline, with a line for each method."""
    text = []
    for headline in headlines:
        methods = {name: m for name, m in summary[headline.key]["methods"].items() if m["count"]}
        if not methods:
            continue
        text += [f"**{headline.label}** ({'more' if headline.better > 0 else 'less'} is better)", ""]
        text += [f"| method | median (95 %) | entries | against the {FULL} | against crefdenoiser |"]
        text += ["|---|---|---|---|---|"]
        for name, numbers in methods.items():
            line = f"| {name} | {_interval(numbers, headline.digits)} | {numbers['count']} |"
            for other in (FULL, "crefdenoiser"):
                against = numbers["against"].get(other)
                cell = ""
                if against and against["difference"]["count"]:
                    cell = f"{against['difference']['median']:+.{headline.digits}f} "
                    cell += f"({against['above']} up, {against['below']} down"
                    cell += ")" if against["p"] is None else f", p = {against['p']:.2g})"
                line += f" {cell} |"
            text.append(line)
        text.append("")
    return "\n".join(text)


def _figure(headlines, rows):
    shown = [headline for headline in headlines if any(row.get(headline.key) is not None for row in rows)]
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


def _page(headlines, summary, rows, left_out, output: Output, pictures):
    header, lines = _cells(headlines, summary, rows)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    every = [[_number(row.get(key)) for key in keys] for row in rows]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>crefjax benchmark</title>",
        f"<style>{_STYLE}</style><h1>Benchmark: {len({row['entry'] for row in rows})} entries</h1>",
        f"<p>crefjax {__version__}. Medians over entries, with 95 % bootstrap intervals; p by Wilcoxon's signed-rank "
        "test over the entries that both methods have. An FSC between denoised half-maps is not part of it: it is not "
        "a resolution.</p>",
        _html_table(header, lines),
        _image(output.folder / f"{output.name}.png", "A box for each method and number"),
    ]
    for name, about in pictures:
        parts += [f"<h2>{html.escape(about)}</h2>", _image(output.folder / f"{name}.png", about)]
    parts += ["<h2>Every entry and method</h2>", _html_table(keys, every)]
    if left_out:
        items = "".join(f"<li>{html.escape(': '.join(filter(None, skipped.values())))}</li>" for skipped in left_out)
        parts.append(f"<h2>Left out</h2><ul>{items}</ul>")
    return "\n".join(parts) + "\n"


def _number(value):
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _html_table(header, lines):
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in line) + "</tr>" for line in lines)
    return f"<table><tr>{head}</tr>{body}</table>"


def _image(path, words):
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(words, quote=True)}" src="data:image/png;base64,{data}">'


STUDY = Study(__name__, _run, _add_arguments)
