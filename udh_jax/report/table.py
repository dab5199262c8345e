"""Tables that read well in a terminal and in Markdown."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A Markdown table with aligned columns, the first to the left and the others to the right.

  Args:
    header: Column names.
    rows: Cells, as many in each row as there are names.

  Returns:
    The lines, without a newline at the end.
  """
  widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

  def line(cells):
    padded = [
      c.ljust(w) if i == 0 else c.rjust(w)
      for i, (c, w) in enumerate(zip(cells, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"

  rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
  return "\n".join([line(header), "|" + "|".join(f" {r} " for r in rule) + "|", *map(line, rows)])
