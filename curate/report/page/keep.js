// Applies `keep:` with the arithmetic of curate/run/select.py on the same numbers, so the page and `rushes funnel` agree.
"use strict";

const KEPT = 0, FAILED = 255;
let keep = [];           // rules in order: {column, above?, below?, is?, piece?}
let good = null;         // 1 where no stage failed
let seconds = null;      // of each row
let source_of = null;    // number of the source of each row
let selection = null;    // the last result of `select`
const results_alone = new Map(); // cache of `alone`, by the rule as JSON
const listeners = { now: [], settled: [] };

/** Loads what the rules need. */
async function open_keep() {
  const [start, end] = await Promise.all([column("start_s"), column("end_s")]);
  seconds = Float64Array.from(start.values, (from, row) => end.values[row] - from);
  good = await load("good");
  source_of = new Int32Array((await load("sources")).buffer);
  reset_keep();
  await Promise.all(keep.map((rule) => (rule.piece ? load(rule.piece) : column(rule.column))));
  for (const rule of keep) if (rule.piece) rule.mask = await load(rule.piece);
  selection = select(keep);
}

/** The rules as the pipeline has them. */
function reset_keep() {
  keep = facts.keep.map((rule) => ({ ...rule, mask: keep.find((other) => other.piece && other.piece === rule.piece)?.mask }));
}

/** Numbers of the good rows that are not null, in order. */
function sorted_values(found) {
  if (!found.sorted) found.sorted = Float64Array.from(found.values).filter((value, row) => good[row] && value_of(found, row) !== null).sort();
  return found.sorted;
}

/** The p-th percentile by linear interpolation, as numpy.percentile; NaN of nothing. */
function percentile(sorted, p) {
  if (!sorted.length) return NaN;
  const at = (sorted.length - 1) * (p / 100), low = Math.floor(at), t = at - low;
  const a = sorted[low], b = sorted[Math.min(low + 1, sorted.length - 1)];
  return t >= 0.5 ? b - (b - a) * (1 - t) : a + (b - a) * t;
}

/** A bound as a number: a percentile such as "p25" is taken over this run. */
function limit_of(found, bound) {
  return typeof bound === "string" ? percentile(sorted_values(found), Number(bound.slice(1))) : bound;
}

/** One rule by itself: `mask` (1 for each row that passes) and the clips and seconds that it drops alone. The column must be loaded. */
function alone(rule) {
  const key = JSON.stringify([rule.column, rule.above, rule.below, rule.is]);
  if (results_alone.has(key)) return results_alone.get(key);
  const found = { mask: rule.mask ?? pass_mask(columns.get(rule.column), rule), alone: 0, alone_s: 0 };
  for (let row = 0; row < rows; row += 1) if (!found.mask[row] && good[row]) { found.alone += 1; found.alone_s += seconds[row]; }
  if (results_alone.size >= 64) results_alone.clear();
  results_alone.set(key, found);
  return found;
}

function pass_mask(found, rule) {
  const mask = new Uint8Array(rows), { values } = found;
  const above = rule.above === undefined ? -Infinity : limit_of(found, rule.above);
  const below = rule.below === undefined ? Infinity : limit_of(found, rule.below);
  if (found.kind === "number") for (let row = 0; row < rows; row += 1) mask[row] = values[row] >= above && values[row] <= below ? 1 : 0;
  else for (let row = 0; row < rows; row += 1) mask[row] = value_of(found, row) === null ? 0 : found.kind === "flag" ? Number(values[row] >= above && values[row] <= below) : 1;
  if (rule.is !== undefined) {
    const allowed = new Set([rule.is].flat().map((value) => (found.kind === "word" ? value : Number(value))));
    for (let row = 0; row < rows; row += 1) if (mask[row] && !allowed.has(found.kind === "word" ? found.words[values[row]] : values[row])) mask[row] = 0;
  }
  return mask;
}

/** Applies rules in order: `first` holds for each row KEPT, FAILED, or 1 + the number of the rule that drops it. */
function select(rules) {
  const each = rules.map(alone), masks = each.map(({ mask }) => mask), first = new Uint8Array(rows);
  const drops = rules.map((rule, i) => ({ rule, alone: each[i].alone, alone_s: each[i].alone_s, in_order: 0, in_order_s: 0 }));
  const found = { first, drops, kept: 0, kept_s: 0, failed: 0, failed_s: 0 };
  for (let row = 0; row < rows; row += 1) {
    if (!good[row]) { first[row] = FAILED; found.failed += 1; found.failed_s += seconds[row]; continue; }
    let i = 0;
    while (i < masks.length && masks[i][row]) i += 1;
    if (i === masks.length) { found.kept += 1; found.kept_s += seconds[row]; continue; }
    first[row] = i + 1;
    drops[i].in_order += 1;
    drops[i].in_order_s += seconds[row];
  }
  return found;
}

/** Changes, adds or (when no bound is left) removes a rule, and notifies the listeners at the next animation frame. */
function change(name, parts) {
  const at = keep.findIndex((rule) => rule.column === name);
  const rule = { ...(at < 0 ? { column: name } : keep[at]), ...parts };
  for (const key of ["above", "below", "is"]) if (rule[key] === undefined || rule[key] === null) delete rule[key];
  const gone = rule.above === undefined && rule.below === undefined && rule.is === undefined;
  if (gone && at >= 0) keep.splice(at, 1);
  else if (!gone && at < 0) keep.push(rule);
  else if (!gone) keep[at] = rule;
  changed();
}

let frame_request = 0;
function changed() {
  if (!frame_request) frame_request = requestAnimationFrame(() => { frame_request = 0; selection = select(keep); for (const notify of listeners.now) notify(); notify_settled(); });
}
const notify_settled = settled(() => { for (const notify of listeners.settled) notify(); }, 150);

/** The condition that a dropped clip meets, the opposite of the rule: `motion < p25`. The same labels as curate/run/labels.py. */
function dropped_label(rule, nulls = has_nulls(columns.get(rule.column))) {
  const conditions = [];
  if (rule.above !== undefined) conditions.push(`${rule.column} < ${rule.above}`);
  if (rule.below !== undefined) conditions.push(`${rule.column} > ${rule.below}`);
  if (rule.is !== undefined) conditions.push(`${rule.column} is ${other_than([rule.is].flat())}`);
  if (nulls) conditions.push("no value");
  return conditions.join(" or ");
}

/** Every value but these, in words. */
function other_than(kept) {
  if (kept.length > 1) return `neither ${kept.slice(0, -1).join(", ")} nor ${kept.at(-1)}`;
  if (!kept.length) return "any value";
  return typeof kept[0] === "boolean" ? String(!kept[0]) : `not ${kept[0]}`;
}

/** Whether a clip on which no stage failed has no value in this column: every rule on it drops that clip. */
function has_nulls(found) {
  if (!found.nulls || !found.values) return found.nulls > 0;
  found.good_nulls ??= good.some((is_good, row) => is_good && value_of(found, row) === null);
  return found.good_nulls;
}

/** `keep:` as text for a pipeline file. */
function keep_yaml() {
  if (!keep.length) return "keep: {}\n";
  const scalar = (value) => (typeof value === "number" ? yaml_number(value) : typeof value === "string" ? JSON.stringify(value) : String(value));
  const bound = (value) => (typeof value === "string" ? value : yaml_number(value));
  const line = (rule) => {
    const parts = [];
    if (rule.above !== undefined) parts.push(`above: ${bound(rule.above)}`);
    if (rule.below !== undefined) parts.push(`below: ${bound(rule.below)}`);
    if (rule.is !== undefined) parts.push(`is: ${Array.isArray(rule.is) ? `[${rule.is.map(scalar).join(", ")}]` : scalar(rule.is)}`);
    return `  ${rule.column}: {${parts.join(", ")}}\n`;
  };
  return `keep:\n${keep.map(line).join("")}`;
}

/** A number that YAML 1.1 reads as one: with an exponent it needs a point. */
function yaml_number(value) {
  const text = String(value);
  return /e/.test(text) && !/\./.test(text) ? text.replace("e", ".0e") : text;
}
