// Charts by uPlot (page/vendor): histograms, lines, points. Colours come from the style sheet, for the light and the dark scheme.
"use strict";

const charts = new Set(), colours = new Map();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colours.clear(); for (const chart of charts) chart.redraw(false); });

/** A colour of the style sheet, cached: a lookup for each bar would force a layout of the page each time. */
function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colours.get(name);
}

const axis = (more = {}) => ({ stroke: () => colour("soft-text"), grid: { stroke: () => colour("line"), width: 1 }, ticks: { stroke: () => colour("line"), width: 1, size: 4 }, font: "11px system-ui, sans-serif", ...more });

/** A uPlot in `place` that follows its width. */
function chart(place, options, data) {
  const width = () => Math.max(160, place.clientWidth);
  const made = new uPlot({ width: width(), legend: { show: false }, cursor: { show: false }, ...options }, data, place);
  charts.add(made);
  new ResizeObserver(() => { if (place.clientWidth && made.width !== width()) made.setSize({ width: width(), height: options.height }); }).observe(place);
  return made;
}

const BINS = 48;

/** The bin of each row of a number column (255: null) and the range of most values; values outside it count in the outermost bins. */
function bins_of(found) {
  if (found.bins) return found.bins;
  const sorted = sorted_values(found);
  let low = sorted[0] ?? 0, high = sorted.at(-1) ?? 1;
  const from = percentile(sorted, 0.5), to = percentile(sorted, 99.5);
  if (to > from && high - low > 3 * (to - from)) { low = Math.max(low, from); high = Math.min(high, to); }
  if (!(high - low > 1e-9 * Math.max(Math.abs(low), Math.abs(high)))) { const half = 0.5 * Math.max(1, Math.abs(low)); low -= half; high += half; }
  const of_row = new Uint8Array(rows).fill(255), scale = BINS / (high - low), { values } = found;
  for (let row = 0; row < rows; row += 1) {
    const value = values[row];
    if (good[row] && !Number.isNaN(value)) of_row[row] = Math.min(BINS - 1, Math.max(0, Math.floor((value - low) * scale)));
  }
  found.bins = { low, high, of_row, beyond: sorted.length ? sorted.filter((value) => value < low || value > high).length : 0 };
  return found.bins;
}

/** Square roots of the counts per bin, of all good rows or only of the kept ones. */
function bin_counts({ of_row }, only_kept) {
  const counts = new Uint32Array(256), { first } = selection;
  for (let row = 0; row < rows; row += 1) if (!only_kept || first[row] === KEPT) counts[of_row[row]] += 1;
  return Array.from(counts.subarray(0, BINS), Math.sqrt);
}

/** A histogram; `refresh()` counts the kept rows again. Heights are square roots of counts, so that small bins are visible. */
function histogram(place, found) {
  const bins = bins_of(found), step = (bins.high - bins.low) / BINS;
  const centres = Array.from({ length: BINS }, (_, i) => bins.low + (i + 0.5) * step);
  const bars = uPlot.paths.bars({ size: [0.92, 100] });
  const all = bin_counts(bins, false), data = () => [centres, all, bin_counts(bins, true)];
  const made = chart(place, {
    height: 120, padding: [4, 0, 0, 0],
    scales: { x: { time: false, range: [bins.low, bins.high] }, y: { range: [0, Math.max(1, ...all) * 1.02] } },
    axes: [axis({ size: 22, gap: 2, space: 60, values: (_, splits) => splits.map(shown) }), axis({ size: 36, gap: 2, space: 28, grid: { show: false }, values: (_, splits) => splits.map((v) => grouped(Math.round(v * v))) })],
    series: [{}, { fill: () => colour("dropped"), width: 0, paths: bars, points: { show: false } }, { fill: () => colour("kept"), width: 0, paths: bars, points: { show: false } }],
  }, data());
  made.refresh = () => { made.setData(data(), false); made.redraw(false); };
  return made;
}

/** Lines over steps: `lines` are {label, values, colour}. */
function curve(place, steps, lines, height = 200) {
  return chart(place, {
    height, legend: { show: true, live: false },
    scales: { x: { time: false } },
    axes: [axis({ values: (_, splits) => splits.map(shown) }), axis({ size: 52, values: (_, splits) => splits.map(shown) })],
    series: [{ label: "step" }, ...lines.map((line) => ({ label: line.label, stroke: () => colour(line.colour), width: 1.5, spanGaps: true, points: { show: steps.length < 40 } }))],
  }, [steps, ...lines.map((line) => line.values)]);
}

/** A line over levels with its interval, and a second line. Level 0 drops nothing. `lines`: mean, low, high, other. */
function levels_chart(place, levels, lines, height = 150) {
  const line = (label, of, more = {}) => ({ label, stroke: () => colour(of), width: 1.5, spanGaps: true, points: { show: true, size: 5 }, ...more });
  const edge = { stroke: "transparent", points: { show: false } };
  return chart(place, {
    height,
    scales: { x: { time: false, range: [0, Math.max(...levels) * 1.04] } },
    axes: [axis({ size: 24, gap: 2, splits: () => levels, values: (_, splits) => splits.map((v) => `${shown(v)} %`) }), axis({ size: 52, values: (_, splits) => splits.map((v) => `${v > 0 ? "+" : ""}${shown(v)} %`) })],
    series: [{ label: "dropped" }, line("this axis", "kept"), line("", "kept", edge), line("", "kept", edge), line("random subset", "dropped-strong", { dash: [5, 4] })],
    bands: [{ series: [3, 2], fill: () => `color-mix(in srgb, ${colour("kept")} 22%, transparent)` }],
  }, [levels, ...lines]);
}

/** Points of two columns, kept ones drawn over dropped ones. `chosen` receives the rows inside the brushed rectangle. */
function points(place, across, up, chosen) {
  const span = (found) => { const { low, high } = bins_of(found), edge = 0.02 * (high - low); return [low - edge, high + edge]; };
  const paint = (u) => {
    const { ctx } = u, size = Math.max(1.5, Math.min(6, 600 / Math.sqrt(rows))) * devicePixelRatio;
    const x = linear(u, "x"), y = linear(u, "y");
    ctx.save(); ctx.beginPath(); ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height); ctx.clip();
    for (const kept of [false, true]) {
      ctx.fillStyle = colour(kept ? "kept" : "dropped-strong"); ctx.globalAlpha = rows > 20000 ? 0.5 : 0.8;
      for (let row = 0; row < rows; row += 1) {
        if (!good[row] || (selection.first[row] === KEPT) !== kept) continue;
        const a = across.values[row], b = up.values[row];
        if (a === a && b === b) ctx.fillRect(x(a) - size / 2, y(b) - size / 2, size, size);
      }
    }
    ctx.restore();
  };
  const brushed = (u) => {
    const { left, top, width, height } = u.select;
    if (width < 2 || height < 2) return;
    const from = u.posToVal(left, "x"), to = u.posToVal(left + width, "x"), low = u.posToVal(top + height, "y"), high = u.posToVal(top, "y");
    const inside = [];
    for (let row = 0; row < rows; row += 1) {
      const a = across.values[row], b = up.values[row];
      if (good[row] && a >= from && a <= to && b >= low && b <= high) inside.push(row);
    }
    chosen(inside, { from, to, low, high });
  };
  return chart(place, {
    height: 380,
    cursor: { show: true, x: false, y: false, points: { show: false }, drag: { x: true, y: true, setScale: false } },
    scales: { x: { time: false, range: span(across) }, y: { range: span(up) } },
    axes: [axis({ label: across.name, labelSize: 20, labelFont: "12px system-ui, sans-serif", values: (_, splits) => splits.map(shown) }), axis({ label: up.name, labelSize: 20, labelFont: "12px system-ui, sans-serif", size: 52, values: (_, splits) => splits.map(shown) })],
    series: [{}, { paths: () => null, points: { show: false } }],
    hooks: { draw: [paint], setSelect: [brushed] },
  }, [span(across), [null, null]]);
}

/** The position of a value on the canvas, as a function. */
function linear(u, key) {
  const { min, max } = u.scales[key], { left, top, width, height } = u.bbox;
  return key === "x" ? (v) => left + ((v - min) / (max - min)) * width : (v) => top + height - ((v - min) / (max - min)) * height;
}
