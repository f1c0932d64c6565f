// The wall of clips: sorted and filtered by any column, sixty at a time.
"use strict";

const PAGE = 60;
const TESTS = [[">=", "at least"], ["<=", "at most"], ["=", "is"], ["~", "contains"], ["null", "is null"], ["known", "is known"]];
const wall = { show: "kept", sort: "", down: true, filters: [], brushed: null, page: 0, rows: [] };

function open_wall() {
  const names = facts.columns.map((c) => c.name).sort();
  const rules = keep.map((rule, i) => [`rule ${i}`, `dropped: ${dropped_label(rule)}`]);
  const tools = make("div", { class: "tools" },
    make("label", {}, "Show ", choice([["kept", "kept"], ["dropped", "dropped"], ["failed", "failed"], ["all", "all"], ...rules], "kept", (v) => { wall.show = v; renew(); }, "which clips")),
    make("label", {}, "Sort by ", choice([["", "place in the sources"], ...names.map((n) => [n, n])], "", (v) => { wall.sort = v; renew(); }, "sort by")),
    choice([["down", "highest first"], ["up", "lowest first"]], "down", (v) => { wall.down = v === "down"; renew(); }, "direction"),
    make("button", { type: "button", class: "small", id: "add-filter", onclick: () => { wall.filters.push(filter_line(names)); renew(); } }, "Add a filter"));
  byId("clips").append(tools, make("div", { id: "filters" }), make("p", { id: "brushed", class: "note", hidden: true }), make("p", { id: "found", role: "status", class: "note" }),
    make("div", { id: "wall" }), make("div", { class: "pages" },
      make("button", { type: "button", class: "small", id: "previous", onclick: () => turn(-1) }, "Previous"), make("span", { id: "page" }), make("button", { type: "button", class: "small", id: "next", onclick: () => turn(1) }, "Next")));
  listeners.settled.push(() => renew(true));
  renew();
}

/** One filter: a column, a comparison, a value. */
function filter_line(names) {
  const one = { column: names.includes("motion") ? "motion" : names[0], test: ">=", value: "" };
  const input = make("input", { type: "text", "aria-label": "value", oninput: settled(() => { one.value = input.value.trim(); renew(); }, 250) });
  one.element = make("div", { class: "tools filter" }, choice(names.map((n) => [n, n]), one.column, (v) => { one.column = v; renew(); }, "column"),
    choice(TESTS, one.test, (v) => { one.test = v; renew(); }, "comparison"), input,
    make("button", { type: "button", class: "small", onclick: () => { wall.filters = wall.filters.filter((other) => other !== one); renew(); } }, "Remove"));
  return one;
}

/** A filter as a function of a row. Loads the column. */
async function test_of({ column: name, test, value: text }) {
  const found = columns.get(name);
  const get = found.kind === "text" ? ((all) => (row) => all[row])(name === "clip_id" ? ids : await all_texts(name)) : (await column(name), (row) => (found.kind === "clip" ? ids[value_of(found, row)] ?? null : value_of(found, row)));
  if (test === "null") return (row) => get(row) === null;
  if (test === "known") return (row) => get(row) !== null;
  if (text === "") return () => true;
  const number = Number(text), words = text.toLowerCase();
  const words_of = (value) => (typeof value === "boolean" ? (value ? "yes true" : "no false") : as_text(value).toLowerCase());
  if (test === "~") return (row) => get(row) !== null && words_of(get(row)).includes(words);
  if (test === "=") return (row) => { const v = get(row); return v !== null && (typeof v === "number" ? v === number : typeof v === "boolean" ? words_of(v).split(" ").includes(words) : as_text(v).toLowerCase() === words); };
  return (row) => { const v = get(row); return typeof v === "number" && !Number.isNaN(number) && (test === ">=" ? v >= number : v <= number); };
}

/** Value to sort by, of each row; null comes last. */
async function sort_key(name) {
  const found = columns.get(name);
  if (found.kind === "text") { const all = name === "clip_id" ? ids : await all_texts(name); return (row) => (all[row] === null ? null : as_text(all[row])); }
  await column(name);
  return found.kind === "number" ? (row) => (Number.isNaN(found.values[row]) ? null : found.values[row]) : (row) => value_of(found, row);
}

let turn_number = 0;

/** Finds the rows again and draws the first page; `stay` keeps the page number. */
const renew = showing_errors(async (stay = false) => {
  const number = (turn_number += 1);
  byId("filters").replaceChildren(...wall.filters.map((one) => one.element));
  const tests = await Promise.all(wall.filters.map(test_of)), key = wall.sort ? await sort_key(wall.sort) : null;
  if (number !== turn_number) return;  // a newer call is running
  const { first } = selection, wanted = wall.show.startsWith("rule ") ? Number(wall.show.slice(5)) + 1 : null;
  const shows = { kept: (s) => s === KEPT, failed: (s) => s === FAILED, dropped: (s) => s !== KEPT && s !== FAILED, all: () => true }[wall.show] ?? ((s) => s === wanted);
  const found_in = (row) => shows(first[row]) && tests.every((test) => test(row));
  let found = [];
  if (wall.brushed) found = wall.brushed.filter(found_in);
  else for (let row = 0; row < rows; row += 1) if (found_in(row)) found.push(row);
  if (key) {
    const keyed = found.map((row) => [key(row), row]), way = wall.down ? -1 : 1;
    keyed.sort(([a, i], [b, j]) => (a === null) - (b === null) || (a === null ? 0 : a < b ? -way : a > b ? way : 0) || i - j);
    found = keyed.map(([, row]) => row);
  }
  wall.rows = found;
  if (!stay) wall.page = 0;
  draw_wall();
});

function turn(by) { wall.page += by; draw_wall(); byId("clips").scrollIntoView({ block: "start" }); }

const draw_wall = showing_errors(async () => {
  const pages = Math.max(1, Math.ceil(wall.rows.length / PAGE));
  wall.page = Math.min(pages - 1, Math.max(0, wall.page));
  const here = wall.rows.slice(wall.page * PAGE, (wall.page + 1) * PAGE), number = turn_number;
  walk = wall.rows;
  byId("found").textContent = wall.rows.length ? counted(wall.rows.length, "clip") : "no clip matches";
  byId("page").textContent = ` page ${grouped(wall.page + 1)} of ${grouped(pages)} `;
  byId("previous").disabled = wall.page === 0;
  byId("next").disabled = wall.page === pages - 1;
  const drawn = here.map((row) => card(row, ""));
  byId("wall").replaceChildren(...drawn);
  const sorted = wall.sort ? columns.get(wall.sort) : null;
  await Promise.all(here.map(async (row, i) => {
    const [by, ...captions] = await Promise.all([sorted ? shown_value(sorted.name, row) : null, ...facts.captions.map((name) => shown_value(name, row))]);
    const parts = [sorted && `${sorted.name} ${as_text(by)}`, captions.find((caption) => caption)].filter((part) => part);
    if (number === turn_number) drawn[i].querySelector(".text").textContent = parts.join(" · ").slice(0, 300) || ids[row];
  }));
});
