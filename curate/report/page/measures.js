// A card for each measure: histogram, the rule's bounds as handles to drag, the count of dropped clips, and the clips on both sides of a bound.
"use strict";

const BOTH_SIDES = 6;
const cards = new Map();
const seen_cards = new Set();

function open_measures() {
  const names = facts.columns.filter((c) => c.measure && ["number", "flag", "word"].includes(c.kind) && !(c.kind === "word" && c.words.length > 40)).map((c) => c.name);
  const ruled = facts.keep.map((rule) => rule.column).filter((name) => names.includes(name));
  const detail = (name) => /_(first|middle|last)$/.test(name) || /^(fps|width_px|height_px|start_confidence|end_confidence)$/.test(name);
  const rest = names.filter((name) => !ruled.includes(name));
  const place = make("div", { class: "measures" });
  const more = make("div", { class: "measures" });
  const details = rest.filter(detail);
  byId("measures").append(
    make("p", { class: "note" }, "Drag a line, use the arrow keys on it, or type a number. Counts update at once; no file changes. Bar heights are square roots of clip counts."),
    place,
    ...(details.length ? [make("details", {}, make("summary", {}, `${details.length} more: single frames and facts of the files`), more)] : []));
  const watch = new IntersectionObserver((changes) => { for (const { target, isIntersecting } of changes) { if (isIntersecting) { seen_cards.add(target.dataset.name); cards.get(target.dataset.name).awake(); } else seen_cards.delete(target.dataset.name); } }, { rootMargin: "200px" });
  for (const [names_here, where] of [[[...ruled, ...rest.filter((name) => !detail(name))], place], [details, more]]) {
    for (const name of names_here) { const made = measure_card(columns.get(name)); cards.set(name, made); where.append(made.element); watch.observe(made.element); }
  }
  listeners.now.push(() => { for (const name of seen_cards) cards.get(name).refresh(); });
  listeners.settled.push(() => { for (const name of seen_cards) cards.get(name).sides(); });
}

const rule_of = (name) => keep.find((rule) => rule.column === name);

/** A sentence on what the rule of a column drops. */
function drop_text(name) {
  const drop = selection.drops.find(({ rule }) => rule.column === name);
  return drop ? `dropped: ${dropped_label(drop.rule)}, ${counted(drop.alone, "clip")} alone (${length(drop.alone_s)}), ${grouped(drop.in_order)} in order` : "no rule";
}

function measure_card(found) {
  const plot = make("div", { class: "plot" }), bounds = make("div", { class: "bounds" }), summary = make("p", { class: "note drops" }), strip = make("div", { class: "sides" });
  const element = make("article", { class: "measure", "data-name": found.name },
    make("h3", {}, found.name), make("p", { class: "about", title: found.about }, found.about), plot, bounds, summary, strip);
  const made = { element, awake: () => {}, refresh: () => {}, sides: () => {} };
  let started = false;
  made.awake = showing_errors(async () => {
    if (started) { made.refresh(); return; }
    started = true;
    await column(found.name);
    if (found.nulls === rows) { plot.append(make("p", { class: "note" }, "no clip has a value")); return; }
    if (found.kind === "number") number_card(made, found, plot, bounds, summary, strip);
    else word_card(made, found, plot, summary);
    made.refresh();
  });
  return made;
}

/** Histogram and handles of a number. */
function number_card(made, found, plot, bounds, summary, strip) {
  const drawn = histogram(plot, found), { low, high, beyond } = bins_of(found);
  const step = 10 ** Math.floor(Math.log10((high - low) / 200)), digits = Math.max(0, -Math.round(Math.log10(step)));
  const handles = new Map();
  let shown_sides = "", wide = false;  // a drag shows the clips next to its bound; the button widens the card to the page
  for (const side of ["above", "below"]) {
    const handle = make("div", { class: `handle ${side}`, role: "slider", tabindex: 0, "aria-label": `${found.name} ${side}`, "aria-valuemin": low, "aria-valuemax": high });
    const input = make("input", { type: "text", size: 9, inputmode: "decimal", "aria-label": `${found.name} ${side}: a number, or a percentile such as p25`, placeholder: "none", spellcheck: "false" });
    const set = (value) => { shown_sides = side; change(found.name, { [side]: value }); };
    const moved = (value) => {  // a percentile stays a percentile
      const bound = rule_of(found.name)?.[side];
      set(typeof bound === "string" ? `p${Number(share_below(found, value).toFixed(1))}` : Number(Math.min(high, Math.max(low, value)).toFixed(digits)));
    };
    let left = 0;
    handle.addEventListener("pointerdown", (event) => { left = drawn.over.getBoundingClientRect().left; handle.setPointerCapture(event.pointerId); handle.focus(); event.preventDefault(); });
    handle.addEventListener("pointermove", (event) => { if (handle.hasPointerCapture(event.pointerId)) moved(drawn.posToVal(event.clientX - left, "x")); });
    handle.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
      if (event.key === "Delete") set(undefined);
      else if (event.key === "Home" || event.key === "End") moved(event.key === "Home" ? low : high);
      else if (by === undefined) return;
      else {
        const bound = rule_of(found.name)[side];
        if (typeof bound === "string") set(`p${Math.min(100, Math.max(0, Number(bound.slice(1)) + by))}`);
        else moved(limit_of(found, bound) + by * Math.max(step, (high - low) / 100));
      }
      event.preventDefault();
    });
    input.addEventListener("change", () => {
      const text = input.value.trim(), percent = /^p(100|\d{1,2}(\.\d+)?)$/.test(text), number = Number(text);
      if (text && !percent && !Number.isFinite(number)) { input.setCustomValidity("a number, or a percentile such as p25"); input.reportValidity(); return; }
      input.setCustomValidity("");
      set(text === "" ? undefined : percent ? text : number);
    });
    drawn.over.append(handle);
    bounds.append(make("label", {}, side === "above" ? "at least " : "at most ", input));
    handles.set(side, { handle, input });
  }
  bounds.append(make("button", { type: "button", class: "small", onclick: () => { wide = !wide; shown_sides = !wide ? "" : shown_sides || (rule_of(found.name)?.above === undefined ? "below" : "above"); made.sides(); } }, "both sides"));
  if (beyond) bounds.append(make("span", { class: "note" }, `${counted(beyond, "clip")} outside the range shown`));
  made.refresh = (resized = false) => {
    drawn.refresh();
    summary.textContent = drop_text(found.name);
    for (const [side, { handle, input }] of handles) {
      const bound = rule_of(found.name)?.[side], limit = bound === undefined ? undefined : limit_of(found, bound);
      if (handle.bound === bound && !resized) continue;
      handle.bound = bound;
      handle.classList.toggle("unset", bound === undefined);
      handle.style.left = `${drawn.valToPos(Math.min(high, Math.max(low, limit ?? (side === "above" ? low : high))), "x")}px`;
      handle.setAttribute("aria-valuenow", limit ?? (side === "above" ? low : high));
      handle.setAttribute("aria-valuetext", bound === undefined ? "not set" : typeof bound === "string" ? `${bound}, ${shown(limit)}` : shown(limit));
      handle.title = bound === undefined ? `drag to set ${side}` : typeof bound === "string" ? `${bound} = ${shown(limit)}` : shown(limit);
      if (document.activeElement !== input) input.value = bound === undefined ? "" : String(bound);
    }
  };
  made.sides = () => {
    const rule = rule_of(found.name);
    const bound = rule?.[shown_sides] ?? rule?.above ?? rule?.below;
    const side = shown_sides && rule?.[shown_sides] === undefined ? (rule?.above !== undefined ? "above" : "below") : shown_sides;
    made.element.classList.toggle("wide", wide);
    strip.replaceChildren(...(shown_sides && bound !== undefined ? both_sides(found, limit_of(found, bound), side) : shown_sides ? [make("p", { class: "note" }, "set a bound first")] : []));
  };
  drawn.hooks.setSize = [() => requestAnimationFrame(() => made.refresh(true))];
}

/** Share of the known values below a value, in percent. */
function share_below(found, value) {
  const sorted = sorted_values(found);
  let from = 0, to = sorted.length;
  while (from < to) { const middle = (from + to) >> 1; if (sorted[middle] < value) from = middle + 1; else to = middle; }
  return sorted.length ? Math.min(100, (100 * from) / Math.max(1, sorted.length - 1)) : 0;
}

/** The clips nearest to a limit, on either side of it. */
function nearest_rows(found, limit, side) {
  const under = [], over = [], { values } = found;
  const insert = (list, row, better) => {
    let at = list.length;
    while (at > 0 && better(values[row], values[list[at - 1]])) at -= 1;
    if (at < BOTH_SIDES) { list.splice(at, 0, row); if (list.length > BOTH_SIDES) list.pop(); }
  };
  for (let row = 0; row < rows; row += 1) {
    const value = values[row];
    if (!good[row] || value !== value) continue;
    if (side === "above" ? value < limit : value <= limit) insert(under, row, (a, b) => a > b);
    else insert(over, row, (a, b) => a < b);
  }
  return { under, over };
}

function both_sides(found, limit, side) {
  const { under, over } = nearest_rows(found, limit, side), words = (row) => shown(value_of(found, row));
  const group = (title, list) => make("div", { class: "side" }, make("h4", {}, title), make("div", { class: "strip", tabindex: 0, role: "group" }, ...(list.length ? list.map((row) => card(row, words(row))) : [make("p", { class: "note" }, "none")])));
  const [just_dropped, just_kept] = side === "above" ? [under, over] : [over, under];
  const [dropped, kept] = side === "above" ? ["<", ">="] : [">", "<="];
  return [group(`just dropped: ${found.name} ${dropped} ${shown(limit)}`, just_dropped), group(`just kept: ${found.name} ${kept} ${shown(limit)}`, just_kept)];
}

/** The values of a word or a flag: a checkbox, a bar of clips (all, and kept) and both counts for each. */
function word_card(made, found, plot, summary) {
  const values = found.kind === "flag" ? [true, false] : found.words;
  const boxes = new Map(), counts = new Map();
  plot.className = "words";
  for (const value of values) {
    const box = make("input", { type: "checkbox", onchange: () => {
      const chosen = values.filter((v) => boxes.get(v).checked);
      change(found.name, { is: chosen.length === values.length ? undefined : chosen.length === 1 ? chosen[0] : chosen });
    } });
    const bar = make("span", { class: "bar dropped" }), kept = make("span", { class: "bar kept" }), count = make("span", { class: "n" });
    boxes.set(value, box); counts.set(value, { bar, kept, count });
    plot.append(make("label", { class: "word" }, box, make("span", { class: "value" }, shown(value)), make("span", { class: "bars" }, bar, kept), count));
  }
  const code_of = (value) => (found.kind === "flag" ? Number(value) : found.words.indexOf(value));
  made.refresh = () => {
    const every = new Uint32Array(65536), chosen = new Uint32Array(65536), codes = found.values, { first } = selection;
    for (let row = 0; row < rows; row += 1) if (first[row] !== FAILED) { every[codes[row]] += 1; if (first[row] === KEPT) chosen[codes[row]] += 1; }
    const all = new Map(values.map((v) => [v, every[code_of(v)]])), kept = new Map(values.map((v) => [v, chosen[code_of(v)]]));
    const top = Math.max(1, ...all.values()), allowed = rule_of(found.name)?.is;
    for (const value of values) {
      const { bar, kept: inner, count } = counts.get(value);
      bar.style.width = `${(100 * all.get(value)) / top}%`;
      inner.style.width = `${(100 * kept.get(value)) / top}%`;
      count.textContent = `${grouped(kept.get(value))} of ${counted(all.get(value), "clip")}`;
      boxes.get(value).checked = allowed === undefined || [allowed].flat().includes(value);
    }
    summary.textContent = drop_text(found.name);
  };
}
