// Keyboard, theme, times in the viewer's zone, and the one stream of events of a tab.

const body = document.body;
const editable = (element) => element.closest("input, textarea, select, [contenteditable]");

// --- times

const longTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const exactTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const fullTime = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

function showTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.valueOf())) continue;
    element.textContent = (element.closest("[data-exact]") ? exactTime : longTime).format(moment);
    element.title = `${fullTime.format(moment)} (${moment.toISOString()})`;
  }
}

// --- theme

function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax`;
}

// --- keyboard

const help = document.getElementById("help");
let going = 0;

function moveRow(step) {
  const rows = [...document.querySelectorAll("[data-row]")];
  const here = rows.indexOf(document.activeElement?.closest("[data-row]"));
  const next = rows[Math.min(rows.length - 1, Math.max(0, here + step))];
  next?.focus();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (event.target instanceof Element && (editable(event.target) || event.target.closest("dialog"))) return;
  const key = event.key;
  if (Date.now() - going < 1500) {
    going = 0;
    const link = key === "h" ? document.querySelector("a.brand") : document.querySelector(`[data-go="${CSS.escape(key)}"]`);
    if (link) {
      event.preventDefault();
      link.click();
    }
    return;
  }
  const actions = {
    g: () => { going = Date.now(); },
    j: () => moveRow(1),
    k: () => moveRow(-1),
    t: switchTheme,
    "?": () => help?.showModal(),
    "/": () => document.querySelector("[data-filter]")?.focus(),
  };
  if (actions[key]) {
    event.preventDefault();
    actions[key]();
  }
}

// --- stream: one of the tabs that are seen has it and passes on what comes, since a browser has few connections to a
// server; where tabs cannot agree (no secure context), each has its own

const url = body.dataset.stream;
const channel = url ? new BroadcastChannel(url) : null;
const SILENCE = 40_000; // milliseconds without a word of the server, which says something every 15 s
const AGAIN = 3_000; // milliseconds before a stream that was refused is opened again
let state = ["off", "not live"]; // of the stream
let fault = ""; // why the page could not be read again; empty: it could
let read = new Date(); // when what the page shows was read
let following = null; // aborts the wait for the stream, or gives it up

function showState() {
  const element = document.getElementById("live");
  if (!element) return;
  const lost = fault !== "" || state[0] === "lost";
  const text = lost ? `${fault || state[1]} · shown as of ${exactTime.format(read)}` : state[1];
  element.dataset.state = lost ? "lost" : state[0];
  element.hidden = !url && !lost; // a page that only reads itself again says so when it cannot
  if (element.textContent !== text) element.textContent = text;
}

function setState(...next) {
  state = next;
  showState();
}

function setFault(text) {
  fault = text;
  showState();
}

// An answer that is no page replaces nothing: what is shown stays, with when it was read.
function onResponse(event) {
  const { status, headers } = event.detail.ctx.response;
  if (status < 400 || headers.has("hx-redirect")) return;
  event.preventDefault();
  setFault(status === 503 ? "not available" : `the server answers ${status}`);
}

function onRead() {
  read = new Date();
  setFault("");
  showTimes(document);
}

// Whoever writes a reason keeps the form: the page refreshes when it is closed.
let waiting = false;

function changed(kinds) {
  waiting = document.querySelector("details.act[open]") !== null;
  if (!waiting) body.dispatchEvent(new CustomEvent("cumulant:change", { detail: { kinds } }));
}

function tell(...next) {
  setState(...next);
  channel.postMessage({ state: next });
}

// Every tab reads its page again.
function changeAll(kinds) {
  channel.postMessage({ kinds });
  changed(kinds);
}

// Holds the stream until `signal`. A browser opens a broken one again and names the event that it had last; one that
// was refused, or is silent since the machine slept or the network changed, it does not.
function lead(signal) {
  if (signal.aborted) return Promise.resolve();
  let source = null;
  let last = "";
  let heard = 0;
  let retry = 0;

  function open() {
    clearTimeout(retry);
    source?.close();
    heard = Date.now();
    source = new EventSource(last ? `${url}?after=${last}` : url);
    source.onopen = () => {
      heard = Date.now();
      const again = state[0] === "lost";
      tell("on", "live");
      if (again) changeAll([]); // a page that could not be read meanwhile has no event to wait for
    };
    source.onerror = () => {
      tell("lost", "reconnecting");
      if (source.readyState !== EventSource.CLOSED) return;
      changeAll([]); // says why: no sign-in, or the journal is away
      retry = setTimeout(open, AGAIN);
    };
    source.addEventListener("idle", () => { heard = Date.now(); });
    source.onmessage = (message) => {
      heard = Date.now();
      last = message.lastEventId;
      changeAll(JSON.parse(message.data).kinds);
    };
  }

  function watch() {
    if (Date.now() - heard <= SILENCE) return;
    tell("lost", "reconnecting");
    open();
  }

  open();
  const watching = setInterval(watch, SILENCE / 8);
  document.addEventListener("resume", watch);
  channel.onmessage = () => channel.postMessage({ state });
  return new Promise((resolve) => {
    signal.addEventListener("abort", () => {
      clearTimeout(retry);
      clearInterval(watching);
      document.removeEventListener("resume", watch);
      source.close();
      resolve();
    });
  });
}

function hear({ data }) {
  if (data.state) setState(...data.state);
  if (data.kinds) changed(data.kinds);
}

function follow() {
  if (!url || following) return;
  following = new AbortController();
  const { signal } = following;
  channel.onmessage = hear;
  channel.postMessage({ hello: true }); // whoever has the stream answers with its state
  if (!navigator.locks) lead(signal);
  else navigator.locks.request(url, { signal }, () => lead(signal)).catch(() => {}); // given up while it waited
}

function unfollow() {
  following?.abort();
  following = null;
  setState("off", "not live");
}

function onVisible() {
  if (document.visibilityState === "hidden") {
    unfollow();
  } else if (!following) {
    follow();
    changed([]); // whatever happened while the tab was hidden
  }
}

// --- start

document.addEventListener("keydown", onKey);
document.querySelector("[data-theme-switch]")?.addEventListener("click", switchTheme);
document.querySelector("[data-help]")?.addEventListener("click", () => help?.showModal());
document.addEventListener("visibilitychange", onVisible);
document.addEventListener("htmx:before:response", onResponse);
document.addEventListener("htmx:error", () => setFault("the server does not answer"));
document.addEventListener("htmx:after:swap", onRead);
document.addEventListener("toggle", (event) => {
  if (!event.target.matches?.("details.act")) return;
  // What a key opens gets no text by the keys that follow: Enter confirms, and Tab leads to the field.
  const field = event.target.querySelector(":scope > summary[data-key]") ? "form button" : "input:not([type=hidden])";
  if (event.target.open) event.target.querySelector(field)?.focus();
  else if (waiting) changed([]);
}, true);
const every = Number(document.querySelector("[data-every]")?.dataset.every);
if (every) setInterval(() => { if (document.visibilityState === "visible") changed([]); }, every * 1000);
addEventListener("pagehide", unfollow);
addEventListener("pageshow", () => { if (document.visibilityState !== "hidden") follow(); });
showTimes(document);
follow();
