// What does the room look like now? Reads status.json again and again, and patches the page in place.
//
// Everything in status.json that came from a machine is hostile. It gets into the page by
// textContent alone, and a MAC address becomes part of a link only if it looks like one.
"use strict";

// Letter, and the word for it. Shape and colour are in page.css.
const STATES = {
  failed: "!", missing: "?", again: "A", booting: "b", booted: "B", fetching: "F", scanning: "S",
  downloading: "D", verifying: "V", seeding: "✓", hooks: "H", done: "✓",
};
const stateOf = (machine) => machine.again ? "again" :
  Object.hasOwn(STATES, machine.state) ? machine.state : "missing";
// One that was booted in another way may have told no MAC address.
const keyOf = (machine) => machine.mac || machine.address;
const MEASURED = ["scanning", "downloading", "verifying"];
const MAC = /^[0-9a-f]{2}(-[0-9a-f]{2}){5}$/;
// serve writes once a second. Together a change is on the page within 2 s.
const POLL_MS = 700;
// A request that hangs must not stop the polling.
const ANSWER_MS = 5000;
// serve writes every second. Below this age nobody needs to know.
const OLD_MS = 5000;
const TEXT_MAX = 200;
const ATTENTION_MAX = 100;

const byId = (id) => document.getElementById(id);
const names = new Intl.Collator(undefined, { numeric: true });
let newest = null;
// Of the newest figures: their `now`, our clock when they came, how old they were then.
let stamp = null, cameAt = 0, ageThen = 0;
let answered = true;

async function poll() {
  const started = performance.now();
  try {
    const response = await fetch("status.json",
      { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const status = await response.json();
    answered = true;
    if (status.now !== stamp) take(status, response.headers.get("Date"));
  } catch (error) {
    answered = false;
    console.error(error);
  }
  showAge();
  setTimeout(poll, Math.max(100, POLL_MS - (performance.now() - started)));
}

// The server's clock may be wrong, and so may ours. Its `Date` and its `now` are of one clock, so
// their difference is the age of the figures, also if serve ended before this page was opened.
function take(status, date) {
  stamp = status.now;
  cameAt = performance.now();
  ageThen = Math.max(0, Date.parse(date) - status.now * 1000) || 0;
  newest = status;
  showJob(status);
  showTotals(status);
  showChart(status.history, status.now);
  showTiles(status.machines);
  showAttention(status);
}

function showAge() {
  if (stamp === null) {
    set(byId("phase"), answered ? "reading the figures" : "the server does not answer yet");
    return;
  }
  const age = ageThen + performance.now() - cameAt;
  const final = newest.phase === "ended" && answered;
  const old = age >= OLD_MS && !final;
  byId("age").hidden = !old;
  document.body.classList.toggle("old", old);
  if (!old) return;
  const why = answered ? "Nothing on the server updates them." : "The server does not answer.";
  set(byId("age"), `These figures are ${words(age / 1000)} old. ${why}`);
}

// --- the head -----------------------------------------------------------------------------------

function showJob(status) {
  const { complete, machines, failed } = status.totals;
  set(byId("title"), status.title);
  const begun = `running for ${words(status.now - status.began_at)}`;
  const phase = { ending: "the job ends, machines leave", ended: "the job has ended" };
  set(byId("phase"), [phase[status.phase] || begun, status.words, status.server]
    .filter(Boolean).join(" · "));
  set(document, `${complete}/${machines} complete${failed ? `, ${failed} failed` : ""} – ` +
    short(status.title), "title");
}

function showTotals(status) {
  const totals = status.totals;
  for (const name of ["complete", "machines", "failed", "working", "missing"])
    set(byId(name), String(totals[name]));
  byId("failed-figure").classList.toggle("none", totals.failed === 0);
  set(byId("eta"), totals.eta === null ? "–" : clock(totals.eta));
  set(byId("percent"), `${Math.floor(totals.percent)} %`);
  set(byId("left"), bytes(totals.bytes_left));
  const shrunk = totals.fetched_wire > 0 && totals.fetched_wire < totals.fetched;
  const wire = Math.floor(100 * totals.fetched_wire / totals.fetched);
  set(byId("down"), `${bytes(totals.down)}/s` + (shrunk ? ` (${wire} % on the wire)` : ""));
  set(byId("seed"), `${bytes(status.seed.up)}/s`);
  byId("all").setAttribute("aria-valuenow", Math.floor(totals.percent));
  byId("all").style.setProperty("--percent", `${totals.percent}%`);
}

// The x axis is the whole job, stretched over the width.
function showChart(history, now) {
  const most = Math.max(1, ...history.down);
  const last = Math.max(1, history.down.length - 1);
  const points = history.down.map((down, index) =>
    `${(240 * index / last).toFixed(1)} ${(59 - 56 * down / most).toFixed(1)}`);
  const line = points.length > 1 ? `M${points.join("L")}` : "";
  byId("curve").setAttribute("d", line);
  byId("area").setAttribute("d", line && `${line}L240 60L0 60Z`);
  set(byId("caption"), most > 1 ?
    `${words(now - history.began_at)}, at most ${bytes(most)}/s` : "nothing received yet");
}

// --- the machines -------------------------------------------------------------------------------

function showTiles(machines) {
  const sorted = [...machines].sort((a, b) =>
    names.compare(a.name || a.mac, b.name || b.mac) || names.compare(a.mac, b.mac));
  const byKey = new Map(sorted.map((machine) => [keyOf(machine), machine]));
  patch(byId("tiles"), [...byKey.keys()], newTile, (tile, key) => showTile(tile, byKey.get(key)));
  showLegend(machines);
  fit();
}

function newTile() {
  const tile = element("li");
  for (const [name, kind] of [["mark", "span"], ["name", "bdi"], ["state", "span"],
    ["percent", "span"], ["detail", "bdi"], ["bar", "span"]])
    tile.append(element(kind, name), " ");
  tile.firstElementChild.setAttribute("aria-hidden", "true");
  tile.lastElementChild.setAttribute("aria-hidden", "true");
  return tile;
}

function showTile(tile, machine) {
  const [mark, name, word, percent, more, bar] = tile.children;
  const state = stateOf(machine);
  const flagged = machine.flags.length > 0 && state !== "failed";
  const measured = MEASURED.includes(state);
  set(tile, `${state}${flagged ? " flagged" : ""}`, "className");
  set(mark, STATES[state]);
  set(name, machine.name || machine.mac);
  set(word, state);
  set(percent, measured ? `${Math.floor(machine.percent)} %` : "");
  set(more, detail(machine));
  set(bar.style, `${machine.complete ? 100 : measured ? machine.percent.toFixed(1) : 0}%`, "width");
  set(tile, `${short(machine.name || machine.mac)}, ${machine.mac} ${machine.address}, ` +
    `${state}: ${detail(machine)}`, "title");
}

function detail(machine) {
  if (machine.again) return "to be imaged again";
  if (machine.state === "failed") return machine.error || "no reason given";
  if (machine.flags.length > 0) return machine.flags.join("; ");
  if (machine.waiting) return `waits: ${machine.waiting}`;
  if (machine.state === "downloading")
    return `${bytes(machine.down)}/s` + (machine.eta === null ? "" : `, ${clock(machine.eta)}`);
  if (machine.state === "seeding") return `sends ${bytes(machine.up)}/s`;
  if (machine.state === "missing") return "not seen yet";
  if (["hooks", "done"].includes(machine.state)) return machine.back ? "started its own disk" : "";
  return machine.address;
}

// What the letters mean, and how many machines are in each state.
function showLegend(machines) {
  const entries = new Map();
  for (const state of Object.keys(STATES)) {
    const count = machines.filter((machine) => stateOf(machine) === state).length;
    if (count > 0) entries.set(state, count);
  }
  patch(byId("legend"), [...entries.keys()], () => {
    const item = element("li");
    item.append(element("span", "mark"), " ", element("span", "number"));
    item.firstChild.setAttribute("aria-hidden", "true");
    return item;
  }, (item, state) => {
    set(item, state, "className");
    set(item.firstChild, STATES[state]);
    set(item.lastChild, `${entries.get(state)} ${state}`);
  });
}

// Chooses the largest tiles with which all machines fit on the screen, so that nobody has to scroll
// in front of a projector. On a phone they are wide enough for a name, and the page scrolls.
function fit() {
  const list = byId("tiles");
  const count = list.children.length;
  const gap = count > 120 ? 4 : 10;
  const wide = window.matchMedia("(min-width: 901px)").matches;
  const place = { width: list.clientWidth, gap,
    height: list.parentElement.clientHeight - byId("legend").offsetHeight - 14 };
  const { columns, width, height } = wide ? largestTiles(count, place) : phoneTiles(count, place);
  const size = height < 48 ? "tiny" : height < 110 ? "small" : "large";
  const longest = Math.min(14, Math.max(6, ...[...list.children]
    .map((tile) => tile.children[1].textContent.length)));
  // A letter is about 0.56 wide; the mark and the margins are as wide as the rest.
  const text = Math.min(height * { tiny: 0.42, small: 0.28, large: 0.2 }[size],
    width / (0.56 * longest + (size === "tiny" ? 2.4 : 2.8)));
  list.style.setProperty("--columns", columns);
  list.style.setProperty("--height", `${height.toFixed(1)}px`);
  list.style.setProperty("--gap", `${gap}px`);
  list.style.setProperty("--text", `${Math.min(46, Math.max(10, text)).toFixed(1)}px`);
  set(list, size, "className");
}

function largestTiles(count, place) {
  let best = { columns: Math.max(1, Math.floor(place.width / 60)), width: 56, height: 26 };
  let bestSize = 0;
  for (let columns = 1; columns <= Math.max(1, count); columns++) {
    const lines = Math.ceil(count / columns);
    const width = (place.width - place.gap * (columns - 1)) / columns;
    const height = Math.min(420, (place.height - place.gap * (lines - 1)) / lines);
    // Twice as wide as high is best for a name above a figure.
    const size = Math.min(width / 2, height);
    if (width < 56 || height < 26 || size <= bestSize) continue;
    best = { columns, width, height };
    bestSize = size;
  }
  return best;
}

function phoneTiles(count, place) {
  const smallest = count <= 12 ? 160 : count <= 60 ? 110 : 82;
  const columns = Math.max(1, Math.floor((place.width + place.gap) / (smallest + place.gap)));
  const width = (place.width - place.gap * (columns - 1)) / columns;
  return { columns, width, height: count <= 12 ? 76 : 60 };
}

// --- failures, flags, messages ------------------------------------------------------------------

function showAttention(status) {
  const failed = [], flagged = [], missing = [];
  for (const machine of status.machines) {
    if (stateOf(machine) === "failed") failed.push(machine);
    else if (machine.flags.length > 0) flagged.push(machine);
    if (machine.state === "missing") missing.push(short(machine.name || machine.mac));
  }
  showSentences(byId("failures"), failed.map((machine) => ({ key: keyOf(machine), machine,
    text: [machine.error || "no reason given", ...machine.flags].join("; ") })));
  const sentences = flagged.map((machine) =>
    ({ key: keyOf(machine), machine, text: machine.flags.join("; ") }));
  if (missing.length > 0) {
    missing.sort(names.compare);
    const shown = missing.slice(0, 12).join(", ");
    const more = missing.length > 12 ? ` and ${missing.length - 12} more` : "";
    sentences.unshift({ key: "missing", title: "missing", text: shown + more });
  }
  showSentences(byId("flags"), sentences);
  const messages = status.messages.slice(-5).reverse().map((message) => ({
    key: `${message.time} ${message.text}`, title: `${words(status.now - message.time)} ago`,
    text: message.text }));
  showSentences(byId("messages"), messages);
  byId("attention").hidden = failed.length + sentences.length + messages.length === 0;
}

// Each sentence has a key, a text, and a machine or a title.
function showSentences(list, sentences) {
  const shown = sentences.slice(0, ATTENTION_MAX);
  if (sentences.length > shown.length)
    shown.push({ key: "more", title: "…", text: `and ${sentences.length - shown.length} more` });
  const byKey = new Map(shown.map((sentence) => [sentence.key, sentence]));
  patch(list, [...byKey.keys()], () => {
    const item = element("li");
    const log = element("a");
    log.textContent = "log";
    item.append(element("bdi", "name"), " ", element("bdi", "text"), " ", log);
    return item;
  }, (item, key) => {
    const { machine, title, text } = byKey.get(key);
    const [name, sentence, log] = item.children;
    set(name, machine ? machine.name || machine.mac : title);
    set(sentence, text);
    const linked = Boolean(machine && machine.words && MAC.test(machine.mac));
    log.hidden = !linked;
    if (linked) set(log, `words/${machine.mac}.txt`, "href");
  });
}

// --- elements -----------------------------------------------------------------------------------

function element(kind, className = "") {
  const made = document.createElement(kind);
  made.className = className;
  return made;
}

// Writes only what is new: at 400 machines most of them stay as they are.
const written = new WeakMap();
function set(target, value, property = "textContent") {
  const text = short(value);
  if (!written.has(target)) written.set(target, {});
  const values = written.get(target);
  if (values[property] === text) return;
  values[property] = text;
  target[property] = text;
}

// Makes the items of a list those of `keys`, in this order. Items that stay are not touched: a
// screen reader would read them once more.
function patch(list, keys, make, show) {
  const old = list.items || new Map();
  list.items = new Map(keys.map((key) => [key, old.get(key) || make()]));
  for (const [key, item] of old) if (list.items.get(key) !== item) item.remove();
  let place = list.firstElementChild;
  for (const [key, item] of list.items) {
    show(item, key);
    if (item === place) place = place.nextElementSibling;
    else list.insertBefore(item, place);
  }
}

// --- text ---------------------------------------------------------------------------------------

// At most TEXT_MAX characters, without half ones.
function short(text) {
  const all = String(text);
  const part = all.length > TEXT_MAX ? `${all.slice(0, TEXT_MAX)}…` : all;
  return part.replace(/\p{Surrogate}/gu, "\ufffd");
}

// Powers of ten, as disks and networks are sold.
function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (count >= 999.5 && unit < units.length - 1) { count /= 1000; unit++; }
  return `${count.toFixed(unit === 0 || count >= 99.95 ? 0 : 1)} ${units[unit]}`;
}

// 75 -> 1:15, 3700 -> 1:01 h
function clock(seconds) {
  const two = (number) => String(number).padStart(2, "0");
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 3600) return `${Math.floor(whole / 60)}:${two(whole % 60)}`;
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole % 3600 / 60))} h`;
}

// 75 -> 75 s, 700 -> 11 min, 9000 -> 2.5 h
function words(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.floor(whole / 60)} min`;
  return whole < 172800 ? `${(whole / 3600).toFixed(1)} h` : `${Math.floor(whole / 86400)} days`;
}

window.addEventListener("resize", fit);
setInterval(showAge, POLL_MS);
poll();
