// Two videos in step: both begin together, the shorter one waits on its last picture, both begin again.
"use strict";

const APART_S = 0.12;  // ours: what the eye takes for together, and seldom enough that a slow machine does not stutter

class Pair {
  /** `changed` is called when the videos can be judged, or cannot be played (with a sentence). */
  constructor(left, right, changed) {
    this.both = [left, right];
    this.changed = changed;
    this.shown = "";
    this.seen = new Set();  // those of which a picture was seen
    this.paused = false;
    for (const video of this.both) {
      video.muted = true;
      video.addEventListener("loadeddata", () => { this.seen.add(video); this.begin(); });
      video.addEventListener("ended", () => this.turn());
      video.addEventListener("error", () => { if (video.getAttribute("src")) this.changed(`The ${video.id} video cannot be played here: skip this pair.`); });
      video.addEventListener("click", () => this.pause(!this.paused));
    }
    left.addEventListener("loadedmetadata", () => left.parentElement.style.setProperty("--ratio", `${left.videoWidth} / ${left.videoHeight}`));
    setInterval(() => this.keep_step(), 250);
  }

  /** Both have a picture. */
  get ready() { return this.both.every((video) => this.seen.has(video) && !video.error); }

  show(left, right) {
    if (this.shown === `${left} ${right}`) return;  // the second question: they play on
    this.shown = `${left} ${right}`;
    this.seen.clear();
    [left, right].forEach((source, i) => {
      const video = this.both[i];
      if (source) video.src = source; else video.removeAttribute("src");
      video.load();
    });
  }

  begin() {
    if (!this.ready) return;
    for (const video of this.both) {
      video.currentTime = 0;
      if (!this.paused) video.play().catch(() => {});  // the next pair came, or the browser wants to be asked: a click plays
    }
    this.changed("");
  }

  turn() { if (this.both.every((video) => video.ended)) this.begin(); }

  pause(paused) {
    this.paused = paused;
    for (const video of this.both) if (paused) video.pause(); else if (!video.ended) video.play().catch(() => {});
    if (!paused) this.turn();
    this.changed("");
  }

  keep_step() {
    const [left, right] = this.both, playing = this.both.every((video) => !video.paused && !video.ended && !video.seeking);
    if (playing && Math.abs(left.currentTime - right.currentTime) > APART_S) right.currentTime = Math.min(left.currentTime, right.duration || 0);
  }
}
