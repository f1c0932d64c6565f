// One clip, opened: every frame, all scores with where they stand in the run, captions side by side, what lies at its ends, its neighbours.
"use strict";

const GROUP = "duplicate_group";
let opened = -1;
let walk = [];  // rows that the arrow keys go through

function open_clip_dialog() {
  const dialog = byId("clip");
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key], at = walk.indexOf(opened);
    if (by && at >= 0 && walk[at + by] !== undefined) { open_clip(walk[at + by]); event.preventDefault(); }
  });
}

/** Opens the clip of a row. */
const open_clip = telling(async (row) => {
  opened = row;
  const dialog = byId("clip");
  const [told] = await Promise.all([texts(row), ...facts.columns.filter((c) => c.piece).map((c) => column(c.name))]);
  if (opened !== row) return;
  const big = picture(row), close = make("button", { type: "button", class: "small close", onclick: () => dialog.close() }, "Close");
  big.classList.add("big");
  const state = selection.first[row];
  dialog.replaceChildren(
    make("div", { class: "head" }, make("h2", { id: "clip-title" }, file_name(told.uri ?? value("uri", row))), close),
    make("p", { class: "note" }, `${shown(value("start_s", row))} – ${shown(value("end_s", row))} s · ${told.clip_id} · `,
      make("b", {}, state === KEPT ? "kept" : state === FAILED ? `failed: ${told.error ?? value("error", row)}` : `dropped: ${failing(row).join("; ")}`)),
    make("div", { class: "look" }, big, frames_of(row, big)),
    ...captions_of(told), ...ends_of(row, told), ...neighbours_of(row), scores_of(row, told));
  if (!dialog.open) dialog.showModal();
  big.play();
  dialog.addEventListener("close", () => { big.stop(); opened = -1; }, { once: true });
  dialog.scrollTop = 0;
});

const value = (name, row) => (columns.has(name) && columns.get(name).values ? value_of(columns.get(name), row) : null);
const file_name = (uri) => (uri ?? "clip").split("/").pop();

/** Every rule that a clip fails. */
const failing = (row) => keep.filter((rule) => !alone(rule).mask[row]).map(described);

/** Each frame by itself, to point at. */
function frames_of(row, big) {
  return make("div", { class: "frames" }, ...Array.from({ length: facts.pictures.frames }, (_, i) => {
    const one = picture(row);
    one.show(i);
    one.addEventListener("mouseenter", () => { big.stop(); big.show(i); });
    return one;
  }));
}

/** Captions of every captioner side by side, with what else is said of them. */
function captions_of(told) {
  if (!facts.captions.length) return [];
  const cell = (name) => make("div", { class: "caption" }, make("h4", {}, name), make("p", {}, told[name] ?? value(name, opened) ?? "–"));
  const flags = told.caption_flags ?? null;
  return [make("h3", {}, "Captions"), make("div", { class: "captions" }, ...facts.captions.map(cell)),
    ...(flags && flags.length ? [make("p", { class: "flag" }, `flags: ${as_text(flags)}`)] : [])];
}

/** What lies at both ends: kind, confidence, detector. */
function ends_of(row, told) {
  const end = (side) => [side, ...["kind", "confidence", "detector"].map((what) => { const found = value(`${side}_${what}`, row) ?? told[`${side}_${what}`]; return found === undefined ? null : found; })];
  return [make("h3", {}, "Boundaries"), grid(["", "kind", "confidence", "detector"], [end("start"), end("end")].map((line) => line.map((cell) => (cell === null ? "–" : cell))))];
}

/** Near duplicates, and what comes before and after in the same source. */
function neighbours_of(row) {
  const parts = [], group = columns.get(GROUP);
  if (group?.values && group.kind !== "text" && group.values[row] !== (group.kind === "clip" ? -1 : 65535)) {
    const same = [];
    for (let other = 0; other < rows; other += 1) if (other !== row && group.values[other] === group.values[row]) same.push(other);
    if (same.length) parts.push(make("h3", {}, `Near duplicates (${same.length})`), make("div", { class: "strip", tabindex: 0, role: "group" }, ...same.slice(0, 24).map((other) => card(other, `${shown(value("start_s", other))} s${source_of[other] === source_of[row] ? "" : " of another source"}`))));
  }
  const beside = [row - 2, row - 1, row + 1, row + 2].filter((other) => other >= 0 && other < rows && source_of[other] === source_of[row]);
  if (beside.length) parts.push(make("h3", {}, "Before and after"), make("div", { class: "strip", tabindex: 0, role: "group" }, ...beside.map((other) => card(other, `${shown(value("start_s", other))} s`))));
  return parts;
}

/** All values, with the share of clips that have less. */
function scores_of(row, told) {
  const lines = facts.columns.filter((c) => !facts.captions.includes(c.name) && c.name !== "caption").map((c) => {
    if (c.kind === "text") return told[c.name] === undefined ? null : [c.name, as_text(told[c.name]), "", c.stage];
    const found = value_of(c, row);
    if (found === null) return [c.name, "–", "", c.stage];
    if (c.kind === "clip") return [c.name, make("button", { type: "button", class: "small", onclick: () => open_clip(found) }, ids[found]), "", c.stage];
    return [c.name, make("td", { class: "n" }, shown(found)), make("td", { class: "n" }, c.kind === "number" && c.measure ? `${share_below(c, found).toFixed(0)} %` : ""), c.stage];
  });
  return make("details", { open: true }, make("summary", {}, "All values"), grid(["column", "value", "clips below", "stage"], lines.filter((line) => line)));
}
