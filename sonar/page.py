"""The frame of every HTML page written here: one file that needs nothing else."""

from collections.abc import Iterable
from html import escape
from typing import Any

# Nothing is loaded from anywhere; the page's own scripts and styles run, and nothing can be sent out.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto }
th, td { padding: 3px 9px; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap }
td.number { text-align: right; font-variant-numeric: tabular-nums }
td.bar { min-width: 110px; background: linear-gradient(90deg, #cfe2f5 var(--share), transparent var(--share)) }
tr.pick { background: #e6f4ea } tr.failed { color: #999 }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto }
"""


def page(title: str, sections: Iterable[str], *, style: str = "") -> str:
    """A whole page.

    Args:
        title: any text; it is escaped.
        sections: HTML, whose names are escaped by who made it.
        style: CSS beside that of all pages.
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def cell(value: Any) -> str:
    """A table cell; a number is shown short and kept exact in `data-value`."""
    if value is None:
        return "<td></td>"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="number" data-value="{value!r}">{value:.4g}</td>'
    return f"<td>{escape(str(value))}</td>"


def number(value: float | None, digits: int) -> str:
    """A table cell with a number of so many decimals, exact in `data-value`; empty for None."""
    return "<td></td>" if value is None else f'<td class="number" data-value="{value!r}">{value:.{digits}f}</td>'


def bar(value: float, length: float, text: str) -> str:
    """A table cell with a text over a bar, whose length is a share of the cell."""
    return f'<td class="number bar" style="--share:{100 * length:.1f}%" data-value="{value!r}">{escape(text)}</td>'


def share(value: float | None) -> str:
    """A table cell with a share between 0 and 1 as percent and as a bar; empty for None."""
    return "<td></td>" if value is None else bar(value, value, f"{value:.1%}")


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells; the names of the columns are escaped."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
