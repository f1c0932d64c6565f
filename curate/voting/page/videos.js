// Two synchronized videos: both start together, the shorter one waits on its last frame, then both start again.
"use strict";

const APART_S = 0.12;  // maximum offset; our choice: not noticeable, and seldom corrected on a slow machine

class Pair {
  /** `changed` is called when both videos are ready, and with a sentence when one cannot be played. */
  constructor(left, right, changed) {
    this.both = [left, right];
    this.changed = changed;
    this.shown = "";
    this.seen = new Set();  // videos with a loaded frame
    this.paused = false;
    for (const video of this.both) {
      video.muted = true;
      video.addEventListener("loadeddata", () => { this.seen.add(video); this.begin(); });
      video.addEventListener("ended", () => this.turn());
      video.addEventListener("error", () => { if (video.getAttribute("src")) this.changed(`The ${video.id} video cannot be played in this browser: skip this pair.`); });
      video.addEventListener("click", () => this.pause(!this.paused));
    }
    left.addEventListener("loadedmetadata", () => left.parentElement.style.setProperty("--ratio", `${left.videoWidth} / ${left.videoHeight}`));
    setInterval(() => this.keep_step(), 250);
  }

  /** Whether both have a frame. */
  get ready() { return this.both.every((video) => this.seen.has(video) && !video.error); }

  show(left, right) {
    if (this.shown === `${left} ${right}`) return;  // the second question: both keep playing
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
      if (!this.paused) video.play().catch(() => {});  // the next pair is shown, or the browser blocks autoplay: a click plays
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
