"""Search of EMDB for entries, through its public interface.

A query is in the syntax of Apache Solr, over EMDB's fields, such as `structure_determination_method`, `resolution`, and
`half_map_filename`; https://www.ebi.ac.uk/emdb/documentation/search describes both. The interface gives the entries
that match as a table of comma-separated values.
"""

import csv
import io
from typing import NamedTuple
from urllib.parse import quote, urlencode

from crefjax.errors import UserError
from crefjax.io.emdb import entry_number, parse_number
from crefjax.io.http import HttpClient

SEARCH_URL = "https://www.ebi.ac.uk/emdb/api/search"
_ROWS = 1_000_000  # more than EMDB has; the interface gives a few by default


class FoundEntry(NamedTuple):
    """An entry that matches a query.

    Attributes:
        entry: `EMD-` and its number.
        resolution: Å; None if EMDB has none.
    """

    entry: str
    resolution: float | None


def search_emdb(query: str, *, search_url: str = SEARCH_URL, client: HttpClient | None = None) -> list[FoundEntry]:
    """Return the entries that match a query, by their number.

    Args:
        query: in EMDB's syntax, such as `structure_determination_method:"singleParticle" AND resolution:[* TO 4]`.
        search_url: address of the interface.
        client: for the request.

    Raises:
        UserError: the query is empty or not understood, the interface cannot be reached, or answers something else.
    """
    if not query.strip():
        raise UserError("query: expected one such as 'resolution:[2 TO 4] AND \"ribosome\"', found nothing")
    fields = urlencode({"rows": _ROWS, "fl": "emdb_id,resolution", "wt": "csv", "download": "false"})
    url = f"{search_url.rstrip('/')}/{quote(query, safe='')}?{fields}"
    text = (client or HttpClient()).read_text(url, accept="text/csv")
    rows = csv.DictReader(io.StringIO(text or ""))
    if "emdb_id" not in (rows.fieldnames or ()):
        begin = " ".join((text or "nothing").split())[:60]
        raise UserError(f"{search_url}: expected a table with the column emdb_id, found {begin!r}; check the query")
    found = {}
    for row in rows:
        if row["emdb_id"]:
            number = entry_number(row["emdb_id"])
            found[number] = FoundEntry(f"EMD-{number}", parse_number(row.get("resolution")))
    return [found[number] for number in sorted(found, key=int)]
