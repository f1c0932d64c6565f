// Elements and numbers. Text from a run only ever becomes text nodes.
"use strict";

/** An element: `make("td", {class: "n", title: "..."}, "text", child)`. Properties that begin with `on` are listeners. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const byId = (id) => document.getElementById(id);

const number_format = new Intl.NumberFormat("en");
/** A count with separators between thousands. */
const grouped = (n) => number_format.format(n);

/** A value as text; numbers with up to four significant digits. */
function shown(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return grouped(value);
  const size = Math.abs(value);
  return size >= 1e6 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

/** A count with its noun: `1 clip`, `1,024 clips`. */
const counted = (n, noun) => `${grouped(n)} ${noun}${n === 1 ? "" : "s"}`;

/** A length in seconds as text: in s, min or h. */
function length(seconds) {
  if (seconds < 600) return `${seconds.toFixed(1)} s`;
  return seconds < 36000 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

const share = (part, whole) => `${(whole ? (100 * part) / whole : 0).toFixed(1)} %`;

/** A table with a head. Numbers are aligned to the right. A cell that is a td or th is used as it is. */
function grid(head, rows) {
  const line = (cells, tag) => make("tr", {}, ...cells.map((cell) => (cell instanceof Node && /^T[DH]$/.test(cell.nodeName) ? cell
    : make(tag, { class: typeof cell === "number" ? "n" : undefined }, typeof cell === "number" ? shown(cell) : cell ?? ""))));
  return make("div", { class: "scroll", tabindex: 0, role: "group" },
    make("table", {}, make("thead", {}, line(head, "th")), make("tbody", {}, ...rows.map((row) => line(row, "td")))));
}

/** A choice from a list of [value, text]. */
function choice(options, value, onchange, label) {
  const select = make("select", { "aria-label": label, onchange: () => onchange(select.value) },
    ...options.map(([key, text]) => make("option", { value: key }, text)));
  select.value = value;
  return select;
}

/** Calls `act` once, `ms` after the last of a burst of calls. */
function settled(act, ms) {
  let timer = 0;
  return (...values) => { clearTimeout(timer); timer = setTimeout(() => act(...values), ms); };
}

/** Shows an error at the top of the page. */
function problem(error) {
  document.querySelector("main").prepend(make("p", { class: "problem", role: "alert" }, error.message));
  if (byId("clip").open) byId("clip").close();
  scrollTo(0, 0);
}

/** Wraps an asynchronous function so that its errors are shown on the page. (Browsers report no rejections of scripts from a disk.) */
const showing_errors = (act) => (...values) => { act(...values).catch(problem); };
