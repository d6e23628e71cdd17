"""The frame of a page: one HTML file that contains everything it shows and loads nothing from elsewhere."""

import base64
from collections.abc import Iterable
from html import escape
from importlib import resources

# Nothing but the page's own content may be loaded, even if a text from outside should slip through the escaping.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)


def document(title: str, top: str, sections: Iterable[str], footer: str, scripts: str) -> str:
    """Return the text of a page.

    Args:
        title: of the window; escaped here.
        top: HTML above the sections.
        sections: HTML; empty ones are left out.
        footer: HTML.
        scripts: HTML at the end, with the scripts.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="crefjax">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{asset("report.css")}</style>
</head>
<body>
{top}
<main>
{chr(10).join(section for section in sections if section)}
</main>
<footer>{footer}</footer>
{scripts}
</body>
</html>
"""


def asset(name: str) -> str:
    """Return the text of a style sheet or a script; they are inlined, so that the page is self-contained."""
    return resources.files("crefjax.report").joinpath("assets", name).read_text(encoding="utf-8")


def data_uri(content: bytes, kind: str) -> str:
    """Return an address that contains the bytes of a file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
