"use strict";
// The page is drawn by the server; this keeps it fresh, tells ages and reads values off the plots.

const page = document.getElementById("page");
const lost = document.getElementById("lost");
const everyMs = Number(document.body.dataset.everyS) * 1000;
let drawn = null;
let reachedAt = Date.now();

function span(seconds) {
  if (seconds < 60) return `${Math.max(Math.round(seconds), 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h`;
}

function clock(seconds) {
  return new Date(seconds * 1000).toISOString().slice(11, 16);
}

function tellAges() {
  for (const time of page.querySelectorAll("time[data-at]")) {
    const at = Number(time.dataset.at);
    // Below, a replay's own clock and no calendar.
    if (at > 1e8) time.textContent = `${clock(at)}, ${span(Date.now() / 1000 - at)} ago`;
  }
}

// ── news ────────────────────────────────────────────────────────────────────────────────────────

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, {headers: {accept: "text/html"}});
    if (!answer.ok) throw new Error((await answer.json()).error ?? `status ${answer.status}`);
    show(await answer.text());
    reachedAt = Date.now();
    lost.hidden = true;
  } catch (error) {
    const why = error instanceof TypeError ? "the planner does not answer" : error.message;
    lost.textContent = `No news for ${span((Date.now() - reachedAt) / 1000)}: ${why}`;
    lost.hidden = false;
  }
}

function show(text) {
  if (text === drawn) return;
  drawn = text;
  const next = new DOMParser().parseFromString(text, "text/html");
  const before = document.getElementById("words");
  const typing = document.activeElement === before && before !== null;
  const scrolled = page.querySelector(".scroll")?.scrollTop ?? 0;
  page.replaceChildren(...next.getElementById("page").childNodes);
  document.title = next.title;
  const words = document.getElementById("words");
  if (words && before) words.value = before.value;
  const box = page.querySelector(".scroll");
  if (box) box.scrollTop = scrolled;
  settle();
  // Only what is shown can be typed into.
  if (words && typing) {
    words.focus();
    words.setSelectionRange(before.selectionStart, before.selectionEnd);
  }
}

// ── the list ────────────────────────────────────────────────────────────────────────────────────

function filter() {
  const words = document.getElementById("words");
  if (!words) return;
  words.parentElement.hidden = false;
  const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = Array.from(document.getElementById("rows").rows);
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !asked.every(word => text.includes(word));
    shown += !row.hidden;
  }
  document.getElementById("count").value = `${shown} of ${rows.length}`;
}

// ── the plots ───────────────────────────────────────────────────────────────────────────────────

const compact = new Intl.NumberFormat("en", {notation: "compact", maximumSignificantDigits: 3});
const WRITE = {
  tps: value => `${compact.format(value)} tokens/s`,
  count: value => String(value),
  // Cut off and not rounded: one miss is never "100%".
  share: value => `${Math.floor(value * 1e4 + 1e-6) / 100}%`,
};

function nearest(times, at) {
  let best = 0;
  times.forEach((time, i) => { if (Math.abs(time - at) < Math.abs(times[best] - at)) best = i; });
  return best;
}

function read(figure, share) {
  const told = figure.told ??= JSON.parse(figure.dataset.hover);
  const at = share * (told.to - told.from);
  const values = told.lines.map(line => {
    const value = line.v[nearest(line.at, at)];
    return value === null || value === undefined ? null : `${line.name} ${WRITE[told.unit](value)}`;
  });
  const known = values.filter(Boolean).join(" · ") || "nothing known";
  figure.querySelector("output").value = `${clock(told.from + at)}  ${known}`;
}

function cross(figure, share) {
  const plot = figure.querySelector(".plot");
  let line = plot.querySelector(".cross");
  if (share === null) {
    line?.remove();
    figure.querySelector("output").value = "";
    return;
  }
  if (!line) {
    line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    line.setAttribute("class", "cross");
    line.setAttribute("y1", "0");
    line.setAttribute("y2", "150");
    plot.append(line);
  }
  for (const end of ["x1", "x2"]) line.setAttribute(end, `${share * 100}%`);
  read(figure, share);
}

function point(event) {
  const plot = event.target.closest?.(".plot");
  const figures = page.querySelectorAll(".picture");
  if (!plot) {
    figures.forEach(figure => { if (figure.querySelector(".cross")) cross(figure, null); });
    return;
  }
  const box = plot.getBoundingClientRect();
  const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  // All pictures have the same times: one look tells what belonged together.
  figures.forEach(figure => cross(figure, share));
}

function settle() {
  tellAges();
  filter();
}

page.addEventListener("input", filter);
page.addEventListener("pointermove", point);
page.addEventListener("pointerleave", () =>
  page.querySelectorAll(".picture").forEach(figure => cross(figure, null)));
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, everyMs);
setInterval(tellAges, 1000);
settle();
document.documentElement.dataset.live = "yes";
