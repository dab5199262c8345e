// The page of udh-jax serve. What it shows follows from the address, so that going back, reloading
// and sending a link all work: ?name= an item, ?text= words, ?code= a code (with &outputs=, the
// encoder's real-valued outputs for the picture), else the collection.

const PAGE = 60;
const DEFAULT_K = 24;
const $ = (id) => document.getElementById(id);

let collection = null; // what GET v1/collection said
let asking = null; // AbortController of what is asked now
// By the codes of pictures that were sent, for as long as the page is open: pictures and outputs.
const given = new Map();
const outputsOf = new Map();

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(address, options = {}) {
  let response;
  try {
    response = await fetch(address, { ...options, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server does not answer; is it still running?");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  throw new Refusal(response.status, answer?.error?.message ?? `It failed (${response.status}).`);
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const number = (value) => value.toLocaleString("en");
const several = (count, one) => `${number(count)} ${one}${count === 1 ? "" : "s"}`;

// --- the address

// Bytes of names that are not UTF-8 would not survive URLSearchParams, so names stay encoded as the
// server wrote them.
function nameIn(query) {
  return /(?:^\?|&)name=([^&]*)/.exec(query)?.[1] ?? null;
}

function readAddress() {
  const query = new URLSearchParams(location.search);
  const whole = (name) => (/^\d+$/.test(query.get(name) ?? "") ? Number(query.get(name)) : null);
  return {
    name: nameIn(location.search),
    text: query.get("text"),
    code: query.get("code"),
    outputs: query.get("outputs"),
    contains: query.get("contains"),
    asymmetric: query.get("asymmetric") === "true",
    k: whole("k") ?? DEFAULT_K,
    radius: whole("radius"),
    where: query.getAll("where"),
    offset: whole("offset") ?? 0,
  };
}

function writeAddress(view) {
  const parts = [];
  const add = (name, value) => parts.push(`${name}=${encodeURIComponent(value)}`);
  if (view.name != null) parts.push(`name=${view.name}`);
  if (view.text != null) add("text", view.text);
  if (view.code != null) add("code", view.code);
  const outputs = view.code != null && view.asymmetric ? outputsOf.get(view.code) : null;
  if (outputs != null) add("outputs", outputs);
  if (view.contains) add("contains", view.contains);
  if (view.asymmetric) add("asymmetric", true);
  if (view.k !== DEFAULT_K) add("k", view.k);
  if (view.radius != null) add("radius", view.radius);
  for (const condition of view.where) add("where", condition);
  if (view.offset) add("offset", view.offset);
  return parts.length ? `?${parts.join("&")}` : "./";
}

// The address of another query with the same options.
function addressOf(query) {
  const { k, radius, where, asymmetric } = readAddress();
  return writeAddress({ k, radius, where, asymmetric, offset: 0, ...query });
}

function go(address, { focus = true } = {}) {
  if (new URL(address, location.href).href !== location.href) history.pushState(null, "", address);
  return show({ focus });
}

// Pictures that are still shown while others are on their way lead on with the options set since.
function carryOptions() {
  for (const link of document.querySelectorAll("#grid a")) {
    link.href = addressOf({ name: nameIn(link.search) });
  }
}

// Links within the page are real ones; a plain click on one need not load the page again.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || link.target) return;
  if (link.className === "skip") {
    event.preventDefault(); // a new address would show all anew
    return $("results").focus();
  }
  const to = new URL(link.href);
  if (to.origin !== location.origin || to.pathname !== location.pathname || to.hash) return;
  event.preventDefault();
  go(link.href);
});
addEventListener("popstate", () => show({ focus: false }));

// --- what is shown

async function show({ focus }) {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  const view = readAddress();
  if (view.outputs != null && codeOf(view.outputs) === view.code) {
    outputsOf.set(view.code, view.outputs);
  }
  fillOptions(view);
  carryOptions();
  $("results").setAttribute("aria-busy", "true");
  problem(null);
  try {
    const isQuery = view.name != null || view.text != null || view.code != null;
    const answer = isQuery ? await askNeighbours(view, signal) : await askPage(view, signal);
    if (signal.aborted) return;
    if (answer.index !== collection.index) {
      await readCollection();
      if (signal.aborted) return;
    }
    if (isQuery) showNeighbours(view, answer);
    else showPage(view, answer);
    if (focus) {
      $("results").focus({ preventScroll: true });
      const top = isQuery ? $("query") : $("results");
      if (top.getBoundingClientRect().top < 0) top.scrollIntoView();
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 401) return login();
    problem(error.message);
  } finally {
    if (!signal.aborted) $("results").setAttribute("aria-busy", "false");
  }
}

// The code of outputs, which a link may have from anywhere; null if they are none.
function codeOf(outputs) {
  try {
    const bytes = Uint8Array.from(atob(outputs), (letter) => letter.charCodeAt(0));
    const numbers = new DataView(bytes.buffer);
    const code = new Uint8Array(Math.ceil(bytes.length / 32));
    for (let bit = 0; 4 * bit < bytes.length; bit++) {
      if (numbers.getFloat32(4 * bit, true) >= 0) code[bit >> 3] |= 0x80 >> (bit & 7);
    }
    return Array.from(code, (byte) => byte.toString(16).padStart(2, "0")).join("");
  } catch {
    return null;
  }
}

// Where the order by outputs cannot be had it is that of the distances, and the answer says why.
async function askNeighbours(view, signal) {
  if (!view.asymmetric || !collection.takes.asymmetric) return askOrdered(view, signal, false);
  if (view.code != null && !outputsOf.has(view.code)) {
    const answer = await askOrdered(view, signal, false);
    return { ...answer, unordered: "of the picture no more than its code is known." };
  }
  try {
    return await askOrdered(view, signal, true);
  } catch (error) {
    if (view.name == null || ![400, 404, 422].includes(error.status)) throw error;
    return { ...(await askOrdered(view, signal, false)), unordered: error.message };
  }
}

function askOrdered(view, signal, asymmetric) {
  const options = new URLSearchParams({ k: view.k });
  if (view.radius != null) options.append("radius", view.radius);
  for (const condition of view.where) options.append("where", condition);
  if (asymmetric) options.append("asymmetric", true);
  if (view.name != null) {
    return ask(`v1/neighbours?name=${view.name}&${options}`, { signal });
  }
  const code = asymmetric ? { outputs: outputsOf.get(view.code) } : { hex: view.code };
  return ask(`v1/neighbours?${options}`, {
    signal,
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(view.text != null ? { text: view.text } : code),
  });
}

function askPage(view, signal) {
  const options = new URLSearchParams({ offset: view.offset, limit: PAGE });
  if (view.contains) options.append("contains", view.contains);
  return ask(`v1/items?${options}`, { signal });
}

function showNeighbours(view, answer) {
  const { query, neighbours } = answer;
  showQuery(view, query);
  const of = $("query-name").textContent;
  headline(`Neighbours of ${of}`);
  $("grid").replaceChildren(...neighbours.map((item) => tile(item, answer.bits)));
  $("pages").hidden = true;
  const distances = neighbours.map((item) => item.distance).sort((a, b) => a - b);
  const within = view.radius == null ? "" : ` within distance ${view.radius}`;
  let text = `Nothing${within || " is here"}.`;
  if (neighbours.length) {
    const [first, last] = [distances[0], distances.at(-1)];
    const range = first === last ? `at distance ${first}` : `at distances ${first} to ${last}`;
    const all = view.radius != null && answer.complete ? "All " : "";
    text = `${all}${several(neighbours.length, "neighbour")}${within}, ${range} of ` +
      `${answer.bits} bits${query.outputs ? ", most similar first" : ""}.`;
    if (view.radius != null && !answer.complete) {
      text += neighbours.length < view.k
        ? " There may be more: the search is approximate."
        : " There are more; raise Neighbours.";
    }
  }
  if (answer.unordered) text += ` In the order of their distances: ${answer.unordered}`;
  if (query.unknown_words?.length) {
    text += ` Words left out, as the encoder does not know them: ${query.unknown_words.join(", ")}.`;
  }
  $("status").textContent = text;
}

function showQuery(view, query) {
  const picture = $("query-picture");
  const more = $("query-more");
  picture.replaceChildren();
  more.replaceChildren();
  $("query").hidden = false;
  $("query-close").href = addressOf({});
  if (query.kind === "item") {
    picture.append(shot(`v1/thumbnail?name=${view.name}`));
    $("query-name").textContent = query.name;
    const original = make("a", { href: `v1/picture?name=${view.name}`, target: "_blank" });
    original.append("Original picture");
    more.append(original);
  } else if (query.kind === "text") {
    $("query-name").textContent = query.words.join(", ");
  } else {
    const sent = given.get(query.code);
    if (sent) {
      const image = make("img", { src: sent.address, alt: "" });
      image.addEventListener("load", () => sharpen(image));
      image.addEventListener("error", () => picture.replaceChildren()); // browsers show no TIFF
      picture.append(image);
    }
    $("query-name").textContent = sent?.name ?? "the picture of a code";
    more.append(`Code ${query.code}`);
  }
}

function showPage(view, answer) {
  $("query").hidden = true;
  const named = view.contains ? ` with “${view.contains}” in their names` : "";
  headline(named ? `Pictures${named}` : "The collection");
  $("grid").replaceChildren(...answer.items.map((item) => tile(item)));
  const count = answer.items.length;
  const last = answer.offset + count;
  $("status").textContent = count
    ? `${number(answer.offset + 1)} to ${number(last)} of ${several(answer.total, "picture")}` +
      `${named}. Choose one to see its neighbours.`
    : answer.total ? "The collection has no such page."
      : named ? `There are no pictures${named}.` : "The collection is empty.";
  const link = (offset) => addressOf({ offset, contains: view.contains });
  const step = (id, offset, there) => {
    if (there) $(id).href = link(offset);
    else $(id).removeAttribute("href");
  };
  step("previous", Math.max(0, answer.offset - PAGE), answer.offset > 0);
  step("next", answer.offset + PAGE, last < answer.total);
  const pages = Math.max(1, Math.ceil(answer.total / PAGE));
  $("page").value = Math.floor(answer.offset / PAGE) + 1;
  $("page").max = pages;
  $("page-count").textContent = `of ${number(pages)}`;
  $("pages").hidden = pages === 1 && answer.offset === 0;
}

function headline(text) {
  $("title").textContent = text;
  document.title = `${text} – ${collection.title}`;
}

function problem(text) {
  $("problem").hidden = text == null;
  $("problem").textContent = text ?? "";
  if (text != null) $("status").textContent = "";
}

function tile(item, bits) {
  const link = make("a", { href: addressOf({ name: nameIn(item.item.slice("v1/item".length)) }) });
  link.title = item.name;
  const text = make("span", { className: "text" });
  link.append(shot(item.thumbnail));
  if (bits) {
    const bar = make("span");
    bar.style.width = `${(100 * item.distance) / bits}%`;
    link.append(make("span", { className: "far" }, bar));
    text.append(make("span", { className: "distance" }, `distance ${item.distance}`));
  }
  // The end of a path says more than its beginning, so it is the beginning that is cut.
  text.append(make("span", { className: "name" }, make("bdi", {}, item.name)));
  link.append(text);
  return make("li", {}, link);
}

function shot(address) {
  const frame = make("span", { className: "shot" });
  const image = make("img", { alt: "", loading: "lazy", decoding: "async", src: address });
  image.addEventListener("load", () => sharpen(image));
  image.addEventListener("error", () => frame.replaceChildren("picture not available"));
  frame.append(image);
  return frame;
}

// Few pixels drawn large show what they are, not a blur.
function sharpen(image) {
  image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= 64);
}

// --- options

function fillOptions(view) {
  $("k").value = view.k;
  $("radius").value = view.radius ?? "";
  $("asymmetric").checked = view.asymmetric;
  $("words").value = view.text ?? "";
  $("contains").value = view.contains ?? "";
  $("conditions").replaceChildren(
    ...view.where.map((condition, place) => {
      const button = make("button", { type: "button" }, `${condition} ×`);
      button.setAttribute("aria-label", `Remove the condition ${condition}`);
      button.addEventListener("click", () => {
        const where = view.where.filter((_, other) => other !== place);
        go(writeAddress({ ...readAddress(), where }));
      });
      return make("li", {}, button);
    }),
  );
}

$("options").addEventListener("submit", (event) => {
  event.preventDefault();
  const view = readAddress();
  view.k = Number($("k").value);
  view.radius = $("radius").value === "" ? null : Number($("radius").value);
  view.asymmetric = $("asymmetric").checked;
  if (!$("filter").hidden && $("value").value !== "") {
    view.where.push($("column").value + $("operator").value + $("value").value);
    $("value").value = "";
  }
  go(writeAddress(view), { focus: document.activeElement !== $("asymmetric") });
});

$("page-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { contains } = readAddress();
  go(addressOf({ contains, offset: (Number($("page").value) - 1) * PAGE }));
});

$("asymmetric").addEventListener("change", () => $("options").requestSubmit());

$("names-form").addEventListener("submit", (event) => {
  event.preventDefault();
  go(addressOf({ contains: $("contains").value.trim() }));
});

// --- words

$("words-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("words").value.trim();
  if (text) go(addressOf({ text }));
});

$("words").addEventListener("input", async () => {
  const text = $("words").value;
  const start = /[^\s,]*$/.exec(text)[0];
  const before = text.slice(0, text.length - start.length);
  const known = start ? (await ask(`v1/words?start=${encodeURIComponent(start)}`)).words : [];
  if ($("words").value !== text) return; // typed on meanwhile
  $("known-words").replaceChildren(...known.map((word) => make("option", { value: before + word })));
});

// --- pictures that are sent

async function send(file) {
  if (!collection?.takes.pictures) return;
  if (file.size > collection.limits.upload_bytes) {
    const most = Math.floor(collection.limits.upload_bytes / 2 ** 20);
    return problem(`The picture is too large; ${most} MiB are allowed.`);
  }
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  problem(null);
  $("status").textContent = "Looking at the picture…";
  $("results").setAttribute("aria-busy", "true");
  try {
    const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
    const headers = { "Content-Type": type };
    const options = { method: "POST", headers, body: file, signal };
    const asymmetric = collection.takes.asymmetric;
    const answer = await ask(`v1/neighbours?k=1&asymmetric=${asymmetric}`, options);
    const { code, outputs } = answer.query;
    if (outputs) outputsOf.set(code, outputs);
    const before = given.get(code); // of a picture that was sent earlier
    if (before) URL.revokeObjectURL(before.address);
    const name = file.name || "a pasted picture";
    given.set(code, { name, address: URL.createObjectURL(file) });
    await go(addressOf({ code }));
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 401) return login();
    problem(error.message);
  } finally {
    if (!signal.aborted) $("results").setAttribute("aria-busy", "false");
  }
}

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) send(file);
  $("file").value = ""; // so that the same one can be chosen again
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData?.files ?? [];
  if (file) {
    event.preventDefault();
    send(file);
  }
});
const holdsFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
document.addEventListener("dragover", (event) => {
  if (!holdsFile(event)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  if (!holdsFile(event)) return;
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) send(file);
});

// --- the beginning

async function readCollection() {
  collection = await ask("v1/collection");
  const { title, items, bits, encoder, takes, columns, limits } = collection;
  $("home").textContent = title;
  const parts = [several(items, "picture"), `${bits} bits`];
  if (encoder?.method) parts.push(encoder.method);
  $("about").textContent = parts.join(" · ");
  $("give").hidden = !takes.pictures;
  $("words-form").hidden = !takes.texts;
  $("order").hidden = !takes.asymmetric;
  if (takes.texts) {
    const { words } = await ask("v1/words?limit=5");
    $("words-hint").textContent =
      `${number(encoder.words)} words are known, such as ${words.join(", ")}.`;
  }
  $("k").max = limits.k;
  $("radius").max = bits;
  $("filter").hidden = !Object.keys(columns).length;
  $("column").replaceChildren(...Object.keys(columns).map((name) => make("option", {}, name)));
}

function login() {
  $("app").hidden = true;
  $("login").hidden = false;
  $("token").focus();
}

async function openSession(token) {
  await ask("v1/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("login-problem").textContent = "";
  try {
    await openSession($("token").value);
    $("token").value = "";
    await start();
  } catch (error) {
    $("login-problem").textContent = error.message;
  }
});

async function start() {
  // A link with #token=... opens the page at once; what is after # is not sent to the server.
  const token = /^#token=(.+)$/.exec(location.hash)?.[1];
  if (token) {
    history.replaceState(null, "", location.pathname + location.search);
    await openSession(decodeURIComponent(token)).catch(() => null); // else the form is shown
  }
  try {
    await readCollection();
  } catch (error) {
    if (error.status === 401) return login();
    $("app").hidden = false;
    return problem(error.message);
  }
  $("login").hidden = true;
  $("app").hidden = false;
  await show({ focus: false });
}

start();
