"""The page in a real browser: what a person does with it, by mouse, by keys and by ear."""

import base64
import os
import pathlib
import shutil
import socket
import threading
import time

import numpy as np
import pytest
import uvicorn
from PIL import Image

from udh_jax.encoders.folder import encode_folder
from udh_jax.retrieval.index import HammingIndex
from udh_jax.service.access import Access
from udh_jax.service.application import Limits, Service
from udh_jax.service.following import Following, IndexFile, Served
from udh_jax.service.thumbnails import Cache, Thumbnails

pytestmark = pytest.mark.slow
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
COUNT = 130


@pytest.fixture(scope="module")
def browser():
  api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
  if not pathlib.Path(CHROMIUM).exists():
    pytest.skip(f"there is no browser at {CHROMIUM} (apt-get install chromium)")
  with api.sync_playwright() as playwright:
    opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Pictures of colours in circles on grounds; one is a TIFF, which browsers do not show."""
  found = tmp_path_factory.mktemp("page") / "pictures"
  rng = np.random.default_rng(0)
  for i in range(COUNT):
    path = found / ("warm", "cold")[i % 2] / f"{i:03}.{'tif' if i == 1 else 'png'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    small = rng.integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(small).resize((80, 60)).save(path)
  return found


class _Site:
  """A server in a thread of this process."""

  def __init__(self, tmp, path, compiled, token):
    self.path = path
    file = IndexFile(path, batch_sizes=(1, 4))
    made = HammingIndex.load(path).about["encoder"]["digest"]
    following = Following(file, file.load(Served(None, compiled[made], 0.0, None)), every=0.05)
    service = Service(
      following,
      access=Access(token=token, hosts=()),
      thumbnails=Thumbnails(Cache(tmp / "kept", 2**20), threads=2),
      limits=Limits(upload_bytes=100_000),
    )
    listening = socket.create_server(("127.0.0.1", 0))
    self.address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    config = uvicorn.Config(service.application(), log_config=None, lifespan="on")
    self.server = uvicorn.Server(config)
    self._thread = threading.Thread(target=self.server.run, args=([listening],))
    self._thread.start()
    while not self.server.started:
      time.sleep(0.01)

  def stop(self):
    self.server.should_exit = True
    self._thread.join(20)


@pytest.fixture(scope="module")
def sites(tmp_path_factory, folder, encoders, pair_encoder, compiled):
  """Opens a site: of pictures, of pictures and words, or behind a token."""
  tmp, running = tmp_path_factory.mktemp("sites"), {}

  def open_site(kind="pictures"):
    if kind not in running:
      encoder, source = pair_encoder if kind == "words" else encoders[0]
      path = tmp / f"{kind}.index"
      encode_folder(encoder, folder, path, source=str(source))
      running[kind] = _Site(tmp, path, compiled, "open-sesame" if kind == "token" else None)
    return running[kind]

  yield open_site
  for site in running.values():
    site.stop()


@pytest.fixture
def visit(browser, sites):
  """Opens a page; whatever the browser complains of fails the test."""
  contexts, complaints = [], []

  def run(kind="pictures", *, query="", width=1400, scheme="light", expected=(), **options):
    context = browser.new_context(
      viewport={"width": width, "height": 900}, color_scheme=scheme, **options
    )
    context.set_default_timeout(15_000)
    contexts.append(context)
    page = context.new_page()
    address = sites(kind).address

    def note(text):
      if not any(part in text for part in expected):
        complaints.append(text)

    page.on("pageerror", lambda error: note(str(error)))
    page.on("console", lambda message: message.type in ("error", "warning") and note(message.text))
    page.on("request", lambda request: request.url.startswith((address, "blob:")) or note(
      f"asked {request.url}"))  # fmt: skip
    page.goto(address + query)
    return page

  yield run
  for context in contexts:
    context.close()
  assert not complaints


def tiles(page):
  return page.locator("#grid li")


def settled(page, text):
  """Waits until the status says something, and returns all of it."""
  page.wait_for_function(
    "text => document.getElementById('status').textContent.includes(text) &&"
    " document.getElementById('results').getAttribute('aria-busy') === 'false'",
    arg=text,
  )
  return page.inner_text("#status")


def shown(page):
  """Whether the pictures that are in view have been drawn."""
  page.wait_for_function(
    "() => [...document.querySelectorAll('#grid img')].filter(i => i.getBoundingClientRect().top <"
    " innerHeight).every(i => i.complete && i.naturalWidth > 0)"
  )


def names(page):
  return page.locator("#grid .name").all_inner_texts()


def distances(page):
  texts = page.locator("#grid .distance").all_inner_texts()
  return [int(text.removeprefix("distance ")) for text in texts]


def test_the_collection_is_leafed_through(visit):
  page = visit()
  assert settled(page, "of 130").startswith("1 to 60 of 130 pictures")
  shown(page)
  assert tiles(page).count() == 60 and page.locator("#previous[href]").count() == 0
  page.click("#next")
  settled(page, "61 to 120")
  page.fill("#page", "3")
  page.press("#page", "Enter")
  settled(page, "121 to 130")
  assert "offset=120" in page.url and page.locator("#next[href]").count() == 0
  page.go_back()
  settled(page, "61 to 120")
  page.reload()
  settled(page, "61 to 120")


def test_one_goes_on_from_neighbour_to_neighbour_and_back(visit):
  page = visit()
  settled(page, "of 130")
  tiles(page).nth(2).click()
  settled(page, "24 neighbours")
  shown(page)
  first = page.inner_text("#query-name")
  assert page.inner_text("#title") == f"Neighbours of {first}" and first not in names(page)
  assert first in page.title()
  found = distances(page)
  assert found == sorted(found) and len(found) == 24
  second = names(page)[5]
  tiles(page).nth(5).click()
  page.wait_for_function("name => document.title.includes(name)", arg=second)
  assert page.inner_text("#query-name") == second
  page.go_back()
  page.wait_for_function("name => document.title.includes(name)", arg=first)
  assert page.inner_text("#query-name") == first and distances(page) == found
  page.go_forward()
  page.wait_for_function("name => document.title.includes(name)", arg=second)
  page.reload()
  settled(page, "24 neighbours")
  assert page.inner_text("#query-name") == second
  page.click("#query-close")
  settled(page, "of 130")
  assert page.locator("#query").is_hidden()


def test_k_and_radius_stay_while_one_goes_on(visit):
  page = visit()
  settled(page, "of 130")
  page.fill("#k", "7")
  page.fill("#radius", "4")
  page.press("#radius", "Enter")
  tiles(page).first.click()
  settled(page, "within distance 4")
  assert "k=7" in page.url and "radius=4" in page.url
  assert tiles(page).count() <= 7 and max(distances(page), default=0) <= 4
  page.fill("#radius", "")
  page.click("#options button >> nth=0")
  settled(page, "7 neighbours")
  assert tiles(page).count() == 7 and "radius" not in page.url
  page.fill("#k", "0")
  page.click("#options button >> nth=0")
  assert page.evaluate("document.getElementById('k').validity.valid") is False


def test_a_click_before_the_answer_keeps_the_options_just_set(visit):
  page = visit()
  settled(page, "of 130")
  page.fill("#k", "7")
  page.evaluate(
    "() => { document.getElementById('options').requestSubmit();"
    " document.querySelector('#grid a').click(); }"
  )
  settled(page, "7 neighbours")
  assert "k=7" in page.url


def test_a_picture_is_chosen_dropped_and_pasted(visit, folder):
  page = visit()
  settled(page, "of 130")
  picture = folder / "warm" / "004.png"
  page.set_input_files("#file", picture)
  page.wait_for_url("**code=**")
  settled(page, "24 neighbours")
  assert page.inner_text("#query-name") == "004.png"
  assert "warm/004.png" in names(page)[:3] and distances(page)[0] == 0
  page.wait_for_function("() => document.querySelector('#query-picture img').naturalWidth === 80")
  chosen = page.url
  file = """([data, event]) => {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
    const made = event === "drop" ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true })
      : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
    document.body.dispatchEvent(made);
  }"""
  for event in ("drop", "paste"):
    page.click("#query-close")
    settled(page, "of 130")
    page.evaluate(file, [base64.b64encode(picture.read_bytes()).decode(), event])
    page.wait_for_url("**code=**")
    settled(page, "24 neighbours")
    assert page.url == chosen
  page.reload()  # the picture itself is nowhere kept, its code is
  settled(page, "24 neighbours")
  assert page.inner_text("#query-name") == "the picture of a code"


def test_of_two_pictures_with_one_code_the_last_one_is_shown(visit, folder, tmp_path):
  page = visit()
  settled(page, "of 130")
  page.set_input_files("#file", folder / "warm" / "004.png")
  settled(page, "24 neighbours")
  address, first = page.url, page.get_attribute("#query-picture img", "src")
  shutil.copy(folder / "warm" / "004.png", tmp_path / "copy.png")
  page.set_input_files("#file", tmp_path / "copy.png")
  page.wait_for_function("() => document.title.includes('copy.png')")
  assert page.url == address and page.inner_text("#query-name") == "copy.png"
  page.wait_for_function("() => document.querySelector('#query-picture img').naturalWidth === 80")
  assert page.get_attribute("#query-picture img", "src") != first


def test_the_most_similar_come_first_where_that_is_asked(visit, folder):
  page = visit()
  settled(page, "of 130")
  tiles(page).nth(2).click()
  plain = names(page) if settled(page, "24 neighbours") else None
  assert distances(page) == sorted(distances(page))
  page.fill("#k", "20")
  page.check("#asymmetric")
  settled(page, "20 neighbours")
  page.fill("#k", "24")
  page.press("#k", "Enter")
  settled(page, "24 neighbours")
  assert "most similar first" in settled(page, "most similar")
  assert "asymmetric=true" in page.url and names(page) != plain
  ordered = names(page)
  page.reload()
  settled(page, "most similar")
  assert names(page) == ordered and page.is_checked("#asymmetric")
  page.uncheck("#asymmetric")
  settled(page, "bits.")
  assert names(page) == plain
  page.set_input_files("#file", folder / "warm" / "004.png")
  page.wait_for_url("**code=**")
  settled(page, "24 neighbours")
  assert "outputs=" not in page.url
  short = page.url
  page.check("#asymmetric")  # the picture was sent without
  settled(page, "most similar")
  ordered = names(page)
  assert "outputs=" in page.url and "warm/004.png" in ordered[:3]
  page.reload()
  settled(page, "most similar")
  assert names(page) == ordered
  page.goto(short + "&asymmetric=true")  # whose outputs nobody knows
  page.goto(short + "&asymmetric=true&outputs=AAAA")  # which are another's
  assert "no more than its code is known" in settled(page, "24 neighbours")
  page.goto(short + "&asymmetric=true")  # whose outputs nobody knows
  page.goto(short.replace("code=", "code=0000&was=") + "&asymmetric=true&outputs=AAAA")
  assert "no more than its code is known" in settled(page, "24 neighbours")  # of others, as it were
  page.goto(short + "&asymmetric=true")
  assert "no more than its code is known" in settled(page, "24 neighbours")
  assert distances(page) == sorted(distances(page))


def test_an_item_without_its_picture_is_still_answered(visit, sites, folder):
  page = visit(expected=["404"])
  settled(page, "of 130")
  page.check("#asymmetric")
  settled(page, "of 130")
  name = folder / "warm" / "128.png"
  kept = name.read_bytes()
  name.unlink()
  try:
    page.goto(sites("pictures").address + "?name=warm%2F128.png&asymmetric=true")
    said = settled(page, "24 neighbours")
    assert "no longer in the folder" in said and "most similar" not in said
  finally:
    name.write_bytes(kept)


def test_pictures_are_found_by_a_part_of_their_names(visit):
  page = visit()
  settled(page, "of 130")
  page.fill("#contains", "COLD/")
  page.press("#contains", "Enter")
  assert "with “COLD/” in their names" in settled(page, "1 to 60 of 65 pictures")
  assert all(name.startswith("cold/") for name in names(page))
  page.click("#next")
  settled(page, "61 to 65 of 65")
  assert "contains=COLD" in page.url
  page.reload()
  settled(page, "61 to 65 of 65")
  assert page.input_value("#contains") == "COLD/"
  tiles(page).first.click()
  settled(page, "24 neighbours")
  assert page.input_value("#contains") == ""
  page.fill("#contains", "nothing")
  page.press("#contains", "Enter")
  settled(page, "There are no pictures with “nothing” in their names.")


def test_what_cannot_be_read_is_said_and_nothing_else_changes(visit, folder, tmp_path):
  page = visit(expected=["422"])
  settled(page, "of 130")
  (tmp_path / "text.png").write_text("no picture")
  page.set_input_files("#file", tmp_path / "text.png")
  page.wait_for_selector("#problem:not([hidden])")
  assert "cannot be read" in page.inner_text("#problem") and tiles(page).count() == 60
  assert page.get_attribute("#problem", "role") == "alert"
  (tmp_path / "large.png").write_bytes(bytes(100_001))
  page.set_input_files("#file", tmp_path / "large.png")
  page.wait_for_function("() => document.getElementById('problem').textContent.includes('large')")
  page.set_input_files("#file", folder / "cold" / "001.tif")  # read, though it cannot be shown
  settled(page, "24 neighbours")
  assert page.locator("#problem").is_hidden() and "cold/001.tif" in names(page)


def test_words_find_pictures(visit):
  page = visit("words")
  settled(page, "of 130")
  assert "4 words are known" in page.inner_text("#words-hint")
  page.fill("#words", "be")
  page.wait_for_function("() => document.querySelectorAll('#known-words option').length === 2")
  page.fill("#words", "dog unicorn")
  page.press("#words", "Enter")
  assert "does not know them: unicorn" in settled(page, "24 neighbours")
  assert page.inner_text("#title") == "Neighbours of dog" and "text=dog" in page.url
  page.reload()
  settled(page, "24 neighbours")
  assert page.input_value("#words") == "dog unicorn"


def test_it_can_be_used_with_keys_alone(visit):
  page = visit()
  settled(page, "of 130")
  page.keyboard.press("Tab")
  assert page.evaluate("document.activeElement.className") == "skip"
  page.keyboard.press("Enter")
  reached = set()
  for _ in range(12):
    page.keyboard.press("Tab")
    reached.add(page.evaluate("document.activeElement.closest('#grid') !== null"))
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
  assert reached == {True}
  name = page.evaluate("document.activeElement.title")
  page.keyboard.press("Enter")
  settled(page, "24 neighbours")
  assert page.inner_text("#query-name") == name
  assert page.evaluate("document.activeElement.id") == "results"  # reading goes on with the answer


def test_a_screen_reader_hears_what_is_there(visit):
  page = visit("words")
  settled(page, "of 130")
  tiles(page).first.click()
  settled(page, "24 neighbours")
  tree = page.locator("body").aria_snapshot()
  for part in ("main", "complementary", 'heading "Find neighbours of"', "button", "status",
               'combobox "Words"', 'spinbutton "Neighbours"', 'spinbutton "Radius"'):  # fmt: skip
    assert part in tree, part
  assert tree.count('link "distance ') == 24
  unnamed = page.evaluate("""() => [...document.querySelectorAll('input, select, button, a[href]')]
    .filter(e => e.checkVisibility() && !(e.labels?.length || e.ariaLabel || e.textContent.trim()))
    .map(e => e.outerHTML)""")
  assert unnamed == []
  assert page.evaluate("[...document.images].every(image => image.hasAttribute('alt'))")
  assert page.get_attribute("html", "lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_is_readable(visit, width, scheme):
  page = visit(width=width, scheme=scheme)
  settled(page, "of 130")
  tiles(page).first.click()
  settled(page, "24 neighbours")
  assert page.evaluate("document.documentElement.scrollWidth") <= width
  columns = page.evaluate("getComputedStyle(document.getElementById('grid')).gridTemplateColumns")
  assert len(columns.split()) >= (3 if width == 400 else 5)
  assert tiles(page).first.bounding_box()["y"] < (700 if width == 400 else 300)
  poor = page.evaluate("""() => {
    const parts = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const back = (element) => {
      for (let e = element; e; e = e.parentElement) {
        const colour = parts(getComputedStyle(e).backgroundColor);
        if (colour.length < 4 || colour[3] > 0) return colour;
      }
      return [255, 255, 255];
    };
    return [...document.querySelectorAll('h1, h2, p, a, label, button, strong, .name, .distance')]
      .filter((e) => e.checkVisibility() && e.textContent.trim() && !e.matches('.skip'))
      .filter((e) => {
        const [a, b] = [light(parts(getComputedStyle(e).color)), light(back(e))];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
      }).map((e) => e.outerHTML);
  }""")
  assert poor == []


def test_a_token_is_asked_for_once(visit):
  page = visit("token", expected=["401"])
  page.wait_for_selector("#login:not([hidden])")
  assert page.evaluate("document.activeElement.id") == "token"
  page.fill("#token", "wrong-token")
  page.press("#token", "Enter")
  page.wait_for_function("() => document.getElementById('login-problem').textContent !== ''")
  page.fill("#token", "open-sesame")
  page.press("#token", "Enter")
  settled(page, "of 130")
  shown(page)  # pictures too, which can send no header
  page.reload()
  settled(page, "of 130")


def test_a_link_with_the_token_opens_the_page_and_forgets_it(visit):
  page = visit("token", query="#token=open-sesame")
  settled(page, "of 130")
  assert "sesame" not in page.url and "sesame" not in page.evaluate("document.cookie")


def test_a_new_index_is_shown_without_loading_the_page_again(visit, sites, folder):
  page = visit(expected=["404"])  # of items that are gone while their pictures are asked for
  settled(page, "of 130")
  site = sites("pictures")
  index = HammingIndex.load(site.path)
  kept = site.path.with_suffix(".kept")
  shutil.copy(site.path, kept)
  about = dict(index.about)
  new = HammingIndex(index.codes[:50], list(index.names[:50]), num_bits=index.num_bits, about=about)
  try:
    new.save(site.path)
    for _ in range(200):
      page.click("#home")
      if "of 50" in settled(page, " of "):
        break
      time.sleep(0.05)
    assert tiles(page).count() == 50 and "50 pictures" in page.inner_text("#about")
  finally:
    os.replace(kept, site.path)
    time.sleep(0.5)


def test_pictures_that_are_gone_leave_a_note(visit, sites, folder):
  page = visit(expected=["404"])
  settled(page, "of 130")
  folder.rename(folder.with_name("moved"))
  try:
    tiles(page).nth(3).click()
    settled(page, "24 neighbours")
    page.reload()
    settled(page, "24 neighbours")
    page.wait_for_selector("#query-picture >> text=picture not available")
  finally:
    folder.with_name("moved").rename(folder)
