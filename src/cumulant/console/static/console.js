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
let state = ["off", "not live"];
let following = null; // aborts the wait for the stream, or gives it up

function showState(...next) {
  state = next;
  const element = document.getElementById("live");
  if (element && element.dataset.state !== next[0]) [element.dataset.state, element.textContent] = next;
}

// Whoever writes a reason keeps the form: the page refreshes when it is closed.
let waiting = false;

function changed(kinds) {
  waiting = document.querySelector("details.act[open]") !== null;
  if (!waiting) body.dispatchEvent(new CustomEvent("cumulant:change", { detail: { kinds } }));
}

function tell(...next) {
  showState(...next);
  channel.postMessage({ state: next });
}

// Holds the stream until `signal`.
function lead(signal) {
  if (signal.aborted) return Promise.resolve();
  const source = new EventSource(url);
  source.onopen = () => tell("on", "live");
  source.onerror = () => {
    tell("lost", "reconnecting");
    if (source.readyState === EventSource.CLOSED) changed([]); // refused: the page itself says why, or signs in again
  };
  source.onmessage = (message) => {
    const { kinds } = JSON.parse(message.data);
    channel.postMessage({ kinds });
    changed(kinds);
  };
  channel.onmessage = () => channel.postMessage({ state });
  return new Promise((resolve) => {
    signal.addEventListener("abort", () => {
      source.close();
      resolve();
    });
  });
}

function hear({ data }) {
  if (data.state) showState(...data.state);
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
  showState("off", "not live");
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
document.addEventListener("htmx:after:swap", () => showTimes(document));
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
