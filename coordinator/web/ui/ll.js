// Makes the pages live: fetches the page again and takes over what is marked data-live, reads charts under the pointer,
// and by keys, shows times in the reader's zone, moves through tables with j and k. Without it every page is complete, but still.
"use strict";

const wait = 1000 * Number(document.body.dataset.refresh || 0);
const news = document.getElementById("news");

// What the server said of a part, before times were shown in the reader's zone.
const said = new WeakMap();
// Of a chart: how to show a place of its curve, and the place that is shown.
const readings = new WeakMap();

// Puts `made` in the place of `old`, keeping focus and what was scrolled.
function replace(old, made) {
  const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const state = old.querySelector(".state")?.textContent;
  const fresh = document.importNode(made, true);
  const scrolled = Array.from(old.querySelectorAll(".log, .scroll"));
  const read = Array.from(old.querySelectorAll("svg[data-points]"),
    (svg) => ({at: readings.get(svg)?.at ?? null, focused: svg === document.activeElement}));
  said.set(fresh, made.outerHTML);
  old.replaceWith(fresh);
  prepare(fresh);
  fresh.querySelectorAll(".log, .scroll").forEach((part, i) => {
    if (!scrolled[i]) return;
    part.scrollTop = scrolled[i].scrollTop;
    part.scrollLeft = scrolled[i].scrollLeft;
  });
  if (fresh.matches("tr") && fresh.querySelector(".state")?.textContent !== state) fresh.classList.add("fresh");
  if (focused) fresh.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
  fresh.querySelectorAll("svg[data-points]").forEach((svg, i) => {
    if (!read[i]) return;
    if (read[i].focused) svg.focus();
    if (read[i].at !== null) readings.get(svg).show(read[i].at);
  });
}

const pause = () => new Promise((go) => setTimeout(go));

// The rows of a table: those that stay the same are not touched. Between pieces the reader may scroll.
async function replaceRows(old, made) {
  const known = new Map(Array.from(old.children, (row) => [row.id, row]));
  const wanted = new Set(Array.from(made.children, (row) => row.id));
  for (const [id, row] of known) if (!wanted.has(id)) row.remove();
  let at = old.firstElementChild, count = 0;
  for (const row of Array.from(made.children)) {
    if (++count % 100 === 0) await pause();
    const same = known.get(row.id);
    if (!same) {
      const fresh = document.importNode(row, true);
      said.set(fresh, row.outerHTML);
      old.insertBefore(fresh, at);
      prepare(fresh);
      continue;
    }
    if (same === at) at = at.nextElementSibling;
    else old.insertBefore(same, at);
    if (said.get(same) !== row.outerHTML) replace(same, row);
  }
}

let busy = false;

async function refresh() {
  if (document.hidden || busy) return;
  busy = true;
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), 10000);
  try {
    const answer = await fetch(location.href, {signal: stop.signal, redirect: "manual", credentials: "same-origin"});
    if (answer.type === "opaqueredirect" || answer.status === 401) {
      location.reload();  // to the login page
      return;
    }
    if (!answer.ok) throw new Error(`answer ${answer.status}`);
    const made = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = made.getElementById(part.id);
      if (!other) continue;
      if (part.tagName === "TBODY") await replaceRows(part, other);
      else if (said.get(part) !== other.outerHTML) replace(part, other);
    }
    for (const part of made.querySelectorAll("main > section[data-live][id]")) {
      if (!document.getElementById(part.id)) location.reload();  // a new section
    }
    if (news.textContent) news.textContent = "";
    if (made.body.dataset.refresh === "0") clearInterval(loop);
  } catch (error) {
    news.textContent = "no contact with the coordinator; trying again";
  } finally {
    busy = false;
    clearTimeout(timer);
  }
}

const clock = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "medium"});

function showTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (isNaN(at)) continue;
    time.title = time.textContent;
    time.textContent = clock.format(at);
  }
}

function showReading(svg) {
  const points = svg.dataset.points.trim().split(" ").map((pair) => pair.split(",").map(Number));
  const output = svg.closest("figure").querySelector("output");
  const newest = output.textContent;
  const curve = svg.querySelector(".curve");
  const line = document.createElementNS(svg.namespaceURI, "line");
  line.setAttribute("class", "reading");
  line.setAttribute("y1", "10");
  line.setAttribute("y2", "194");
  const [x0, x1] = [points[0][0], points[points.length - 1][0]];
  const box = curve.getBBox();
  const reading = {at: null};
  const nearest = (x) => {
    let low = 0, high = points.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle][0] <= x) low = middle; else high = middle;
    }
    return Math.abs(points[low][0] - x) < Math.abs(points[high][0] - x) ? low : high;
  };
  reading.show = (x) => {
    const near = points[nearest(x)];
    reading.at = near[0];
    const px = box.x + ((near[0] - x0) / (x1 - x0 || 1)) * box.width;
    line.setAttribute("x1", px);
    line.setAttribute("x2", px);
    if (!line.isConnected) svg.append(line);
    output.textContent = `${svg.dataset.xLabel} ${near[0]}: ${near[1]}`;
  };
  const leave = () => {
    reading.at = null;
    line.remove();
    output.textContent = newest;
  };
  readings.set(svg, reading);
  svg.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    reading.show(x0 + ((at.x - box.x) / (box.width || 1)) * (x1 - x0));
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  // By keys: to the curve with Tab, along it with the arrows.
  svg.tabIndex = 0;
  svg.addEventListener("keydown", (event) => {
    const last = points.length - 1;
    const from = reading.at === null ? last + 1 : nearest(reading.at);
    const stride = event.shiftKey ? Math.max(1, Math.round(last / 20)) : 1;
    const to = {ArrowLeft: from - stride, ArrowRight: from + stride, Home: 0, End: last}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    reading.show(points[Math.max(0, Math.min(last, to))][0]);
  });
}

function prepare(root) {
  showTimes(root);
  for (const svg of root.querySelectorAll("svg[data-points]")) showReading(svg);
}

// j and k go to the next and the one before of a table's links, / to the filter.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  if (event.key === "/") {
    const field = document.querySelector("form.filter input");
    if (field) { event.preventDefault(); field.focus(); }
    return;
  }
  if (event.key !== "j" && event.key !== "k") return;
  const links = Array.from(document.querySelectorAll("tbody tr td:first-child a"));
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  const next = event.key === "j" ? at + 1 : at < 0 ? links.length - 1 : at - 1;
  links[Math.max(0, Math.min(links.length - 1, next))].focus();
});

for (const part of document.querySelectorAll("[data-live]")) {
  if (part.tagName !== "TBODY") said.set(part, part.outerHTML);
  else for (const row of part.children) said.set(row, row.outerHTML);
}
prepare(document);
const loop = wait ? setInterval(refresh, wait) : 0;
document.addEventListener("visibilitychange", () => { if (loop && !document.hidden) refresh(); });
