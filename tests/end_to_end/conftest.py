"""A real browser, without a window."""

import html
import json
import re
import shutil
import subprocess
from typing import NamedTuple

import pytest

_PROBE = """
<script>
addEventListener("load", () => {
  const images = [...document.images];
  document.body.dataset.seen = JSON.stringify({
    num_images: images.length,
    num_loaded: images.filter((image) => image.complete && image.naturalWidth > 0).length,
    page_width: document.documentElement.scrollWidth,
    text: document.body.innerText,
  });
  parent.postMessage(document.body.dataset.seen, "*");
});
</script>
"""
# A window is never narrower than 500 pixels; a frame in it may be.
_FRAME = """<!doctype html><link rel="icon" href="data:,">
<script>
addEventListener("message", (event) => { document.body.dataset.seen = event.data; });
</script>
<iframe src="page.html" style="border: 0; width: %dpx; height: 900px"></iframe>
"""


class Seen(NamedTuple):
  """What a browser says of a page.

  Attributes:
    errors: Lines that its console shows.
    num_images: Images on the page.
    num_loaded: Those that are there.
    page_width: In CSS pixels; wider than asked for means scrolling sideways.
    text: All text that can be read.
  """

  errors: list[str]
  num_images: int
  num_loaded: int
  page_width: int
  text: str


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
  """A function from an HTML file and a width to what is `Seen`."""
  program = shutil.which("chromium") or shutil.which("google-chrome")
  if program is None:
    pytest.skip("chromium is not installed (apt-get install chromium)")
  folder = tmp_path_factory.mktemp("browser")

  def see(path, width):
    page = folder / "page.html"
    page.write_text(path.read_text().replace("</body>", _PROBE + "</body>"))
    frame = folder / "frame.html"
    frame.write_text(_FRAME % width)
    done = subprocess.run(
      [
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1600,1000",
        "--virtual-time-budget=5000",
        "--dump-dom",
        frame.as_uri(),
      ],
      capture_output=True,
      text=True,
      timeout=120,
      check=True,
    )
    seen = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert seen, done.stdout[:2000]
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(errors=errors, **json.loads(html.unescape(seen.group(1))))

  return see
