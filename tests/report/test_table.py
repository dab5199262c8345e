from udh_jax.report.table import markdown_table


def test_a_table_is_aligned_markdown():
  table = markdown_table(["method", "mAP"], [["UDH-ECC", "0.5"], ["LSH", "0.25"]])
  assert table.splitlines() == [
    "| method  |  mAP |",
    "| ------- | ---: |",
    "| UDH-ECC |  0.5 |",
    "| LSH     | 0.25 |",
  ]
