// From input seconds to kept seconds: every loss by name, with shares that sum to 100 %. Bars and shares are of seconds; clips are only counted.
"use strict";

function open_funnel() {
  const place = make("div", {});
  byId("funnel").append(place);
  let visible = true;
  const draw = () => { if (visible) place.replaceChildren(...funnel_parts()); };
  new IntersectionObserver(([change]) => { visible = change.isIntersecting; draw(); }).observe(byId("funnel"));
  listeners.now.push(draw);
  draw();
}

/** Entries of the ledger: [name, seconds, kind, drop]. Without a ledger (the scan is not finished) they cover the clips so far. */
function entries() {
  const { ledger } = facts, whole = rows === facts.clips ? ledger : null;
  const unwritten = new Set(facts.unwritten);
  let unwritten_s = 0;
  if (unwritten.size) ids.forEach((id, row) => { if (unwritten.has(id) && selection.first[row] === KEPT) unwritten_s += seconds[row]; });
  const list = [["kept", selection.kept_s - unwritten_s, "kept"]];
  for (const drop of selection.drops) list.push([`dropped: ${dropped_label(drop.rule)}`, drop.in_order_s, "dropped", drop]);
  if (whole) {
    list.push(["too short", whole.too_short_s, "lost"], ["transitions", whole.transition_s, "lost"]);
    if (whole.unaligned_s) list.push(["unaligned", whole.unaligned_s, "lost"]);
  }
  list.push(["failed", (whole ? whole.failed_s : 0) + selection.failed_s + unwritten_s, "failed"]);
  return { list, total: whole ? whole.total_s : list.reduce((sum, [, s]) => sum + s, 0) };
}

function funnel_parts() {
  const { list, total } = entries(), sum = list.reduce((all, [, s]) => all + s, 0);
  const lines = list.map(([name, s, kind, drop]) => {
    const bar = make("span", { class: `bar ${kind}` });
    bar.style.width = `${total ? (100 * Math.max(0, s)) / total : 0}%`;
    return [name, make("td", { class: "n" }, length(s)), make("td", { class: "n" }, share(s, total)), make("td", { class: "bars" }, bar),
      make("td", { class: "n" }, drop ? counted(drop.in_order, "clip") : kind === "kept" ? counted(selection.kept, "clip") : ""),
      make("td", { class: "n" }, drop ? counted(drop.alone, "clip") : "")];
  });
  lines.push([make("th", { scope: "row" }, "total"), make("td", { class: "n" }, length(total)), make("td", { class: "n", id: "accounted" }, share(sum, total)), "", "", ""]);
  const notes = [];
  if (!facts.ledger) notes.push("The scan is not finished: these are the clips so far.");
  if (rows !== facts.clips) notes.push(`The page shows an even sample of ${grouped(rows)} of ${counted(facts.clips, "clip")}; counts and seconds are of the sample.`);
  if (facts.ledger?.duplicate_s) notes.push(`${length(facts.ledger.duplicate_s)} of duplicate files are counted once.`);
  if (facts.ledger?.unknown_length_files) notes.push(`${counted(facts.ledger.unknown_length_files, "file")} could not be opened; their length is unknown and is in no entry.`);
  const limits = keep.flatMap((rule) => ["above", "below"].filter((side) => typeof rule[side] === "string").map((side) => `${rule.column} ${rule[side]} = ${shown(limit_of(columns.get(rule.column), rule[side]))}`));
  if (limits.length) notes.push(`In this run ${limits.join(", ")}.`);
  if (keep.length) notes.push("Rules apply in order: a clip counts for the first rule that drops it. The last column counts every clip that a rule alone would drop.");
  return [grid(["", "seconds", "share of seconds", make("th", { class: "bars" }), "clips", "alone"], lines), ...notes.map((note) => make("p", { class: "note" }, note))];
}
