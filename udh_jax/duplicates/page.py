"""Groups of duplicates on one page that needs no other file."""

import base64
import html
import io
import os
import pathlib

from udh_jax.duplicates.find import Copy, Duplicates, summary
from udh_jax.files import write_text
from udh_jax.printable import printable
from udh_jax.report.page import html_page

MOST_GROUPS = 300
MOST_COPIES = 24  # shown of one group
_SIDE = 240

_STYLE = """
:root { color-scheme: light dark; --line: #d5dce3; --soft: #57636f; --best: #14713d; }
@media (prefers-color-scheme: dark) { :root { --line: #3a444e; --soft: #a8b3be; --best: #6fce98; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 1320px; margin: 0 auto; padding: 20px 16px 64px; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 8px 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 12px; }
p { margin: 4px 0 16px; max-width: 70ch; }
section { border-top: 1px solid var(--line); padding: 18px 0; }
ul { list-style: none; margin: 0; padding: 0; display: grid; gap: 18px 14px;
  grid-template-columns: repeat(auto-fill, minmax(min(156px, 42vw), 1fr)); }
li { min-width: 0; }
.frame { display: flex; align-items: center; justify-content: center; height: 156px;
  border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
.best .frame { border: 3px solid var(--best); }
img { max-width: 100%; max-height: 100%; object-fit: contain; }
.name { overflow-wrap: anywhere; font-size: .85rem; margin-top: 6px; }
.facts { color: var(--soft); font-size: .82rem; font-variant-numeric: tabular-nums; }
.mark { color: var(--best); font-weight: 600; font-size: .85rem; }
"""


def write_groups(
  path: str | os.PathLike, found: Duplicates, folder: str | os.PathLike, *, title: str
) -> None:
  """Writes the page; pictures are in it as thumbnails.

  Args:
    path: HTML file to write, whole or not at all.
    found: From `find_duplicates`.
    folder: Of the pictures.
    title: Heading.
  """
  words = (
    f"{summary(found)} The best of each group has the most pixels, then the most bytes. Nothing "
    "was deleted."
  )
  if len(found.groups) > MOST_GROUPS:
    words += f" The {MOST_GROUPS} largest groups are shown; --json and --csv give all."
  groups = enumerate(found.groups[:MOST_GROUPS], 1)
  body = "".join(_section(number, group, pathlib.Path(folder)) for number, group in groups)
  write_text(path, html_page(printable(title), printable(words), body, style=_STYLE))


def _text(text) -> str:
  return html.escape(printable(text))


def _section(number, group, folder) -> str:
  items = "".join(_item(copy, copy is group[0], folder) for copy in group[:MOST_COPIES])
  more = f"<p>and {len(group) - MOST_COPIES:,} more</p>" if len(group) > MOST_COPIES else ""
  return f"<section><h2>{number}. {len(group)} pictures</h2><ul>{items}</ul>{more}</section>\n"


def _item(copy: Copy, best: bool, folder: pathlib.Path) -> str:
  mark = '<div class="mark">best</div>' if best else ""
  return (
    f'<li{" class=best" if best else ""}><div class="frame">{_thumbnail(folder / copy.name)}</div>'
    f'<div class="name">{_text(copy.name)}</div>'
    f'<div class="facts">{copy.width} × {copy.height}, {copy.size / 1e3:,.0f} kB</div>{mark}</li>'
  )


def _thumbnail(file: pathlib.Path) -> str:
  from PIL import Image

  from udh_jax.data.pictures import decode_picture, open_regular

  data = io.BytesIO()

  def whole(picture, width, height):
    picture = picture.copy()
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    picture.save(data, "JPEG", quality=80)

  try:
    with open_regular(file) as opened:
      decode_picture(opened, _SIDE // 2, whole=whole)
  except (OSError, ValueError):
    return "<span class=facts>cannot be read</span>"
  text = base64.b64encode(data.getvalue()).decode()
  return f'<img loading="lazy" alt="{_text(file.name)}" src="data:image/jpeg;base64,{text}">'
