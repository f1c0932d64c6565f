// Starts the page and draws the sections from top to bottom.
"use strict";

let ids = [];

async function start() {
  for (const piece of ["ids", "places", "good", "sources"]) load(piece).catch(() => {});  // starts these downloads while the run is read
  await open_run();
  document.title = `rushes: ${facts.name}`;
  byId("title").textContent = facts.name;
  const { sources, shards } = facts;
  byId("summary").textContent = `${counted(sources.total, "source")} (${sources.failed} failed), ${counted(facts.clips, "clip")}, ${grouped(shards.clips)} in ${counted(shards.files, "shard")} of ${(shards.bytes / 2 ** 20).toFixed(1)} MiB`;
  ids = parsed(await load("ids"));
  await Promise.all([open_keep(), open_pictures()]);
  listeners.now.push(draw_bar);
  draw_bar();
  open_funnel();
  open_measures();
  open_clip_dialog();
  open_wall();
  await Promise.all([open_scatter(), open_dataset()]);
  open_errors();
  open_time();
  open_training();
  open_ablations();
  document.documentElement.dataset.ready = "yes";
}

function draw_bar() {
  const all_s = seconds.reduce((sum, s) => sum + s, 0);
  byId("kept").textContent = `kept ${grouped(selection.kept)} of ${counted(rows, "clip")} (${share(selection.kept, rows)}) · ${length(selection.kept_s)} of ${length(all_s)} (${share(selection.kept_s, all_s)})`;
  byId("reset").disabled = JSON.stringify(keep.map(({ mask, ...rule }) => rule)) === JSON.stringify(facts.keep);
}

byId("reset").addEventListener("click", () => { reset_keep(); changed(); });
byId("copy").addEventListener("click", async () => {
  const button = byId("copy"), text = keep_yaml();
  try { await navigator.clipboard.writeText(text); } catch { copy_by_hand(text); }
  button.textContent = "Copied";
  button.dataset.copied = text;
  setTimeout(() => button.replaceChildren("Copy ", make("code", {}, "keep:"), " as YAML"), 1500);
});

/** Copies without the clipboard API, which some browsers refuse to a page opened from a disk. */
function copy_by_hand(text) {
  const area = make("textarea", {}, text);
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

showing_errors(start)();
