// What `keep:` keeps: the same arithmetic as curate/run/select.py, on the same numbers, so that the page and `rushes funnel` agree.
"use strict";

const KEPT = 0, FAILED = 255;
let keep = [];           // rules in order: {column, above?, below?, is?, piece?}
let good = null;         // 1 where no stage failed
let seconds = null;      // of each row
let source_of = null;    // number of the source of each row
let selection = null;    // what `select` found last
const verdicts = new Map(); // of rules as JSON, see `alone`
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

/** The number that a bound comes to: a percentile such as "p25" is one of this run. */
function limit_of(found, bound) {
  return typeof bound === "string" ? percentile(sorted_values(found), Number(bound.slice(1))) : bound;
}

/** What a rule comes to by itself: `mask`, one byte for each row that passes, and what it drops alone. The column must be loaded. */
function alone(rule) {
  const key = JSON.stringify([rule.column, rule.above, rule.below, rule.is]);
  if (verdicts.has(key)) return verdicts.get(key);
  const found = { mask: rule.mask ?? pass_mask(columns.get(rule.column), rule), alone: 0, alone_s: 0 };
  for (let row = 0; row < rows; row += 1) if (!found.mask[row] && good[row]) { found.alone += 1; found.alone_s += seconds[row]; }
  if (verdicts.size >= 64) verdicts.clear();
  verdicts.set(key, found);
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

/** Changes a rule (or makes, or takes it away, when nothing is left of it) and tells everybody at the next picture. */
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

let asked = 0;
function changed() {
  if (!asked) asked = requestAnimationFrame(() => { asked = 0; selection = select(keep); for (const tell of listeners.now) tell(); tell_settled(); });
}
const tell_settled = settled(() => { for (const tell of listeners.settled) tell(); }, 150);

/** A rule as one reads it: `motion >= p25`. */
function described(rule) {
  const said = [];
  if (rule.above !== undefined) said.push(`${rule.column} >= ${bound_text(rule.above)}`);
  if (rule.below !== undefined) said.push(`${rule.column} <= ${bound_text(rule.below)}`);
  if (rule.is !== undefined) said.push(`${rule.column} is ${[rule.is].flat().join(" or ")}`);
  return said.join(" and ");
}
const bound_text = (bound) => (typeof bound === "string" ? bound : String(bound));

/** `keep:` as it stands in a pipeline file. */
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
