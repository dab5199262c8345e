"""One self-contained HTML file from tables, words and pictures."""

import base64
import html
import os
import pathlib
import urllib.parse
from collections.abc import Sequence
from typing import NamedTuple

from udh_jax.files import write_text

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; color: #1d2733; background: #f4f6f8; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 8px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 8px; }
section { background: #fff; border: 1px solid #dde3e9; border-radius: 8px; padding: 16px;
  margin: 16px 0; }
p { margin: 4px 0 10px; max-width: 75ch; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 0 4px 14px; text-align: right; vertical-align: bottom;
  border-bottom: 1px solid #e8edf1; }
th:first-child, td:first-child { padding-left: 0; text-align: left; min-width: 9em; }
tbody tr:first-child td { font-weight: 600; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
"""


class Table(NamedTuple):
  """A header and rows of text, the first column to the left."""

  header: Sequence[str]
  rows: Sequence[Sequence[str]]


class Section(NamedTuple):
  """A part of a page.

  Attributes:
    title: Its heading.
    text: Paragraphs below it.
    tables: Below those.
    picture: PNG file to put into the page, or None.
    links: Texts and addresses, relative to the page.
  """

  title: str
  text: Sequence[str] = ()
  tables: Sequence[Table] = ()
  picture: pathlib.Path | None = None
  links: Sequence[tuple[str, str]] = ()


def write_page(
  path: str | os.PathLike, *, title: str, subtitle: str, sections: Sequence[Section]
) -> None:
  """Writes a page that needs no other file and no network.

  Args:
    path: HTML file to write, whole or not at all.
    title: Heading.
    subtitle: Paragraph below it.
    sections: In order.
  """
  body = "".join(map(_section, sections))
  write_text(path, html_page(title, subtitle, body, style=_STYLE))


def html_page(title: str, subtitle: str, body: str, *, style: str) -> str:
  """A page that needs no other file.

  Args:
    title: Heading; text.
    subtitle: Paragraph below it; text.
    body: What follows; HTML.
    style: CSS.
  """
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{html.escape(title)}</h1>
<p>{html.escape(subtitle)}</p>
{body}</main>
</body>
</html>
"""


def _section(section: Section) -> str:
  parts = [f"<h2>{html.escape(section.title)}</h2>"]
  parts += [f"<p>{html.escape(text)}</p>" for text in section.text]
  for table in section.tables:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = "".join(
      "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n"
      for row in table.rows
    )
    head = f"<thead><tr>{head}</tr></thead>"
    parts.append(f'<div class="table"><table>{head}\n<tbody>\n{rows}</tbody></table></div>')
  if section.picture is not None:
    data = base64.b64encode(section.picture.read_bytes()).decode()
    alt = html.escape(section.title, quote=True)
    parts.append(f'<img alt="{alt}" src="data:image/png;base64,{data}">')
  if section.links:
    items = "".join(
      f'<li><a href="{html.escape(urllib.parse.quote(address), quote=True)}">'
      f"{html.escape(text)}</a></li>\n"
      for text, address in section.links
    )
    parts.append(f"<ul>\n{items}</ul>")
  return "<section>\n" + "\n".join(parts) + "\n</section>\n"
