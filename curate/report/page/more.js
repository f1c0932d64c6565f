// The sections Dataset, Errors, Time and Training.
"use strict";

/** The columns of SVD's table 1 (clips, mean length, total, mean frames, clips per source) for all clips and for the kept ones. */
async function open_dataset() {
  const frames = await column("n_frames"), place = make("div", {});
  const line = (name, wanted) => {
    let n = 0, s = 0, f = 0;
    const files = new Set();
    for (let row = 0; row < rows; row += 1) if (wanted(row)) { n += 1; s += seconds[row]; f += frames.values[row]; files.add(source_of[row]); }
    return [name, n, n ? `${(s / n).toFixed(2)} s` : "", length(s), n ? (f / n).toFixed(0) : "", n ? (n / files.size).toFixed(1) : ""];
  };
  const draw = () => place.replaceChildren(grid(["", "clips", "mean length", "total", "mean frames", "clips per source"], [line("before", () => true), line("after", (row) => selection.first[row] === KEPT)]));
  byId("dataset").append(place, make("p", { class: "note" }, "The columns of Stable Video Diffusion's table 1. “After” uses the thresholds set above."));
  listeners.settled.push(draw);
  draw();
}

function open_errors() {
  const section = byId("errors");
  if (!facts.errors.length) { section.append(make("p", { class: "note" }, "Nothing failed.")); return; }
  for (const group of facts.errors) {
    section.append(make("details", { class: "error" }, make("summary", {}, make("b", {}, grouped(group.count)), ` ${group.table}: ${group.message}`),
      make("ul", {}, ...group.examples.map((one) => make("li", {}, `${one.uri ?? one.clip_id ?? ""}${one.clip_id ? ` (${one.clip_id})` : ""}`)), ...(group.count > group.examples.length ? [make("li", {}, "…")] : []))));
  }
  section.append(make("p", { class: "note" }, "All of them: ", make("code", {}, `rushes errors ${facts.run}`)));
}

function open_time() {
  const section = byId("time");
  if (!facts.stages.length) { section.append(make("p", { class: "note" }, "This run has no record of costs: an older version of rushes made it.")); return; }
  const money = make("input", { type: "text", size: 6, inputmode: "decimal", value: "", placeholder: "0", "aria-label": "price of a worker hour" }), place = make("div", {});
  const draw = () => {
    const all = facts.stages.reduce((sum, stage) => sum + (stage.of ? 0 : stage.busy_s), 0), price = Number(money.value) || 0;
    place.replaceChildren(grid(["step", "done", "failed", "worker seconds", "share of worker seconds", make("th", { class: "bars" }), "done per worker second", "tokens", ...(price ? ["cost"] : [])], facts.stages.map((stage) => {
      const bar = make("span", { class: stage.of ? "bar dropped" : "bar kept" });
      bar.style.width = `${all ? (100 * stage.busy_s) / all : 0}%`;
      return [make("td", { class: stage.of ? "part" : undefined }, stage.name), stage.rows ?? "", stage.errors ?? "", make("td", { class: "n" }, stage.busy_s.toFixed(1)), make("td", { class: "n" }, share(stage.busy_s, all)), make("td", { class: "bars" }, bar),
        make("td", { class: "n" }, stage.of || !stage.busy_s ? "" : shown(stage.rows / stage.busy_s)), stage.tokens || "", ...(price ? [make("td", { class: "n" }, ((stage.busy_s / 3600) * price).toFixed(2))] : [])];
    })));
  };
  money.addEventListener("input", draw);
  section.append(make("label", {}, "Price of a worker hour ", money), place);
  draw();
}

const LINES = [["loss", "dropped-strong"], ["heldout_loss", "kept"]];

function open_training() {
  const section = byId("training");
  if (!facts.trainings.length) { section.append(make("p", { class: "note" }, "No training under this run yet: ", make("code", {}, `rushes train --recipe tiny --shards ${facts.run} --out ${facts.run}/train/tiny`), ", then ", make("code", {}, `rushes report ${facts.run}`))); return; }
  for (const { name, curves, sheets, video, problem: damage } of facts.trainings) {
    if (damage) { section.append(make("h3", {}, name), make("p", { class: "problem" }, damage)); continue; }
    const place = make("div", { class: "plot wide" }), { step, ...metrics } = curves;
    const last = Object.entries(metrics).map(([key, values]) => [key, values.findLast((v) => v !== null) ?? null]);
    section.append(make("h3", {}, name), place, make("details", {}, make("summary", {}, "Last values"), grid(["metric", "last"], last)),
      ...(video ? [make("figure", {}, make("video", { src: `trainings/${video}`, controls: true, loop: true, muted: true, preload: "metadata" }), make("figcaption", {}, "the last sample"))] : []),
      ...sheets.map((sheet) => make("figure", {}, make("img", { src: `trainings/${sheet.file}`, loading: "lazy", alt: `samples at ${sheet.title}` }), make("figcaption", {}, sheet.title))));
    const lines = LINES.filter(([key]) => metrics[key]).map(([key, of]) => ({ label: key, values: metrics[key], colour: of }));
    if (lines.length && step.length) curve(place, step, lines);
  }
}
