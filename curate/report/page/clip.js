// The dialog of one clip: frames, captions side by side, boundaries, neighbours, and every value with its percentile in the run.
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
const open_clip = showing_errors(async (row) => {
  opened = row;
  const dialog = byId("clip");
  const [text_values] = await Promise.all([texts(row), ...facts.columns.filter((c) => c.piece).map((c) => column(c.name))]);
  if (opened !== row) return;
  const big = picture(row), close = make("button", { type: "button", class: "small close", onclick: () => dialog.close() }, "Close");
  big.classList.add("big");
  const state = selection.first[row];
  dialog.replaceChildren(
    make("div", { class: "head" }, make("h2", { id: "clip-title" }, file_name(text_values.uri ?? value("uri", row))), close),
    make("p", { class: "note" }, `${shown(value("start_s", row))} – ${shown(value("end_s", row))} s · ${text_values.clip_id} · `,
      make("b", {}, state === KEPT ? "kept" : state === FAILED ? `failed: ${text_values.error ?? value("error", row)}` : `dropped: ${failing(row).join("; ")}`)),
    make("div", { class: "look" }, big, frames_of(row, big)),
    ...captions_of(text_values), ...ends_of(row, text_values), ...neighbours_of(row), scores_of(row, text_values));
  if (!dialog.open) dialog.showModal();
  big.play();
  dialog.addEventListener("close", () => { big.stop(); opened = -1; }, { once: true });
  dialog.scrollTop = 0;
});

const value = (name, row) => (columns.has(name) && columns.get(name).values ? value_of(columns.get(name), row) : null);
const file_name = (uri) => (uri ?? "clip").split("/").pop();

/** For each rule that drops a clip, the condition that the clip meets. */
const failing = (row) => keep.filter((rule) => !alone(rule).mask[row]).map((rule) => {
  const found = columns.get(rule.column);
  return found.values && value_of(found, row) === null ? `${rule.column} has no value` : dropped_label(rule, false);
});

/** The single frames; the pointer on one shows it large. */
function frames_of(row, big) {
  return make("div", { class: "frames" }, ...Array.from({ length: facts.pictures.frames }, (_, i) => {
    const one = picture(row);
    one.show(i);
    one.addEventListener("mouseenter", () => { big.stop(); big.show(i); });
    return one;
  }));
}

/** Captions of every captioner side by side, and the flags. */
function captions_of(text_values) {
  if (!facts.captions.length) return [];
  const cell = (name) => make("div", { class: "caption" }, make("h4", {}, name), make("p", {}, text_values[name] ?? value(name, opened) ?? "–"));
  const flags = text_values.caption_flags ?? null;
  return [make("h3", {}, "Captions"), make("div", { class: "captions" }, ...facts.captions.map(cell)),
    ...(flags && flags.length ? [make("p", { class: "flag" }, `flags: ${as_text(flags)}`)] : [])];
}

/** The boundary at each end: kind, confidence, detector. */
function ends_of(row, text_values) {
  const end = (side) => [side, ...["kind", "confidence", "detector"].map((what) => { const found = value(`${side}_${what}`, row) ?? text_values[`${side}_${what}`]; return found === undefined ? null : found; })];
  return [make("h3", {}, "Boundaries"), grid(["", "kind", "confidence", "detector"], [end("start"), end("end")].map((line) => line.map((cell) => (cell === null ? "–" : cell))))];
}

/** Near duplicates, and the clips before and after in the same source. */
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
function scores_of(row, text_values) {
  const lines = facts.columns.filter((c) => !facts.captions.includes(c.name) && c.name !== "caption").map((c) => {
    if (c.kind === "text") return text_values[c.name] === undefined ? null : [c.name, as_text(text_values[c.name]), "", c.stage];
    const found = value_of(c, row);
    if (found === null) return [c.name, "–", "", c.stage];
    if (c.kind === "clip") return [c.name, make("button", { type: "button", class: "small", onclick: () => open_clip(found) }, ids[found]), "", c.stage];
    return [c.name, make("td", { class: "n" }, shown(found)), make("td", { class: "n" }, c.kind === "number" && c.measure ? `${share_below(c, found).toFixed(0)} %` : ""), c.stage];
  });
  return make("details", { open: true }, make("summary", {}, "All values"), grid(["column", "value", "clips below", "stage"], lines.filter((line) => line)));
}
