// The section Ablation: for each axis the change of the held-out loss when its worst clips are dropped, the votes of people, and samples.
"use strict";

const percent = (value) => (value === null || value === undefined ? "" : `${value > 0 ? "+" : ""}${value.toFixed(1)} %`);
const span = (ends) => (ends ? `${percent(ends[0])}${ends[1] === null ? "" : ` (${percent(ends[1])} to ${percent(ends[2])})`}` : "");
/** A cell that stays on one line. */
const narrow = (text) => make("td", { class: "n" }, text);

function open_ablations() {
  const section = byId("ablation");
  if (!facts.ablations.length) { section.append(make("p", { class: "note" }, "This run has no ablation yet. An ablation compares thresholds by small trainings: ", make("code", {}, `rushes ablate ${facts.run}`))); return; }
  for (const one of facts.ablations) {
    section.append(make("h3", {}, one.name));
    if (one.problem) { section.append(make("p", { class: "problem" }, one.problem)); continue; }
    const { done, trainings, steps_s } = one.cost;
    section.append(make("p", { class: "note" }, `${one.recipe}, ${grouped(one.steps)} steps, ${counted(one.seeds, "training")} of each subset: ${done} of ${trainings} done, ${length(steps_s)} of steps. The losses are measured on ${counted(one.heldout, "clip")} that no training had. Green: change of the loss when the worst clips of an axis are dropped, with its interval; dashed: random subsets of the same sizes. Below 0 is better.`));
    if (!one.arms.length) { section.append(make("p", { class: "note" }, "No training can be compared yet.")); continue; }
    const axes = make("div", { class: "measures" });
    section.append(axes);
    for (const answer of one.answers) axes.append(axis_card(one, answer));
    if (Object.keys(one.keep).length) {
      const yaml = `keep:\n${Object.entries(one.keep).map(([name, rule]) => `  ${name}: {${Object.entries(rule).map(([side, value]) => `${side}: ${value}`).join(", ")}}`).join("\n")}\n`;
      section.append(make("pre", { class: "answer" }, yaml), make("p", { class: "note" }, make("code", {}, `rushes ablate ${facts.run} --name ${one.name} --apply pipeline.yaml`)));
    }
    for (const note of [one.limits, ...one.notes]) section.append(make("p", { class: "note" }, note));
    section.append(make("details", {}, make("summary", {}, "Every subset"), grid(["subset", "clips", "loss", "against all clips", "against a random subset", "on dropped clips", "outcome", ...score_names(one)],
      one.arms.map((row) => [row.arm, row.clips, row.loss, narrow(row.arm === "all" ? "" : span(row.to_all)), narrow(span(row.to_control)), narrow(row.arm === "all" ? "" : percent(row.elsewhere)), narrow(row.outcome), ...score_names(one).map((key) => row.scores[key] ?? "")]))));
    for (const opinion of one.people) section.append(people_card(opinion));
    section.append(sample_grid(one));
  }
}

const score_names = (one) => [...new Set(one.arms.flatMap((row) => Object.keys(row.scores)))];

/** One axis: its answer in words, and a chart of the loss over the share dropped, with random subsets of the same sizes. */
function axis_card(one, answer) {
  const place = make("div", { class: "plot" });
  const card = make("div", { class: "measure" }, make("h3", {}, answer.axis, ": ", answer.rule ? `drop ${answer.level} %` : "keep all"), make("p", {}, answer.why), place);
  const own = one.arms.filter((row) => row.axis === answer.axis && row.to_all).sort((a, b) => a.level - b.level);
  const random = new Map(one.arms.map((row) => [row.arm, row.to_all[0]]));
  const column = (read) => [0, ...own.map(read)];
  requestAnimationFrame(() => levels_chart(place, column((row) => row.level), [column((row) => row.to_all[0]), column((row) => row.to_all[1] ?? row.to_all[0]), column((row) => row.to_all[2] ?? row.to_all[0]), column((row) => random.get(row.control) ?? null)]));
  return card;
}

/** The ratings of one axis by one question. */
function people_card(opinion) {
  const rows = opinion.ratings.map((row) => [row.contestant, Math.round(row.elo * 10) / 10, narrow(`${row.low.toFixed(1)} to ${row.high.toFixed(1)}`), row.bradley_terry === null ? "" : Math.round(row.bradley_terry), row.games, row.wins, row.ties]);
  return make("details", { open: true }, make("summary", {}, `${opinion.group}: votes of people on ${opinion.question}`),
    grid(["subset", "Elo", "95 % interval", "Bradley-Terry", "comparisons", "won", "ties"], rows), make("p", { class: "note" }, opinion.summary));
}

/** The samples of every subset by prompt, with the same seeds. A video plays while it has the pointer or the keyboard focus. */
function sample_grid(one) {
  const { prompts, files } = one.samples, arms = Object.keys(files);
  const video = (file) => {
    if (!file) return make("td", {}, "–");
    const player = make("video", { src: `ablations/${file}`, muted: true, loop: true, playsinline: true, preload: "metadata", tabindex: 0, width: 128 });
    player.muted = true;
    for (const event of ["pointerenter", "focus"]) player.addEventListener(event, () => player.play().catch(() => {}));
    for (const event of ["pointerleave", "blur"]) player.addEventListener(event, () => player.pause());
    return make("td", {}, player);
  };
  return make("details", {}, make("summary", {}, `Samples of ${counted(prompts.length, "prompt")}, first seed`),
    grid(["", ...arms], prompts.map((prompt, i) => [make("td", {}, make("span", { class: "text", title: prompt.slice(0, 1000) }, prompt)), ...arms.map((arm) => video(files[arm][i]))])));
}
