// A scatter plot of two measures; the wall shows the clips inside the brushed rectangle.
"use strict";

async function open_scatter() {
  const names = facts.columns.filter((c) => c.kind === "number" && c.measure && c.nulls < rows).map((c) => c.name);
  const place = make("div", { class: "plot wide", id: "points" }), section = byId("scatter");
  if (names.length < 2) { section.append(make("p", { class: "note" }, "A scatter plot needs two measures with numbers, and this run has fewer.")); return; }
  const ruled = keep.map((rule) => rule.column).filter((name) => names.includes(name));
  const chosen = [...new Set([...ruled, ...names])].slice(0, 2);
  let drawn = null;
  const draw = showing_errors(async () => {
    const [across, up] = await Promise.all(chosen.map(column));
    if (drawn) { charts.delete(drawn); drawn.destroy(); }
    place.replaceChildren();
    drawn = points(place, across, up, (inside, { from, to, low, high }) => {
      wall.brushed = inside; wall.show = "all"; byId("clips").querySelector("select").value = "all";
      const note = byId("brushed");
      note.hidden = false;
      note.replaceChildren(`Brushed: ${across.name} ${shown(from)} to ${shown(to)}, ${up.name} ${shown(low)} to ${shown(high)} (${counted(inside.length, "clip")}). `,
        make("button", { type: "button", class: "small", onclick: () => { wall.brushed = null; note.hidden = true; renew(); } }, "Show all again"));
      renew();
      hint.replaceChildren(make("a", { href: "#clips" }, `${counted(inside.length, "clip")} brushed: see them`));
    });
  });
  const hint = make("p", { class: "note", role: "status" }, "Drag a rectangle over points to see their clips.");
  section.append(make("div", { class: "tools" }, ...[0, 1].map((i) => make("label", {}, i ? "Up " : "Across ", choice(names.map((n) => [n, n]), chosen[i], (v) => { chosen[i] = v; draw(); }, i ? "up" : "across")))), place, hint);
  let visible = false;
  new IntersectionObserver(([{ isIntersecting }]) => { visible = isIntersecting; if (visible && !drawn) draw(); else if (visible) drawn.redraw(false); }, { rootMargin: "200px" }).observe(place);
  listeners.settled.push(() => { if (visible && drawn) drawn.redraw(false); });
}
