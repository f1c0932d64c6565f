// Thumbnails of a clip, cut out of its sheet; they play while the pointer or the keyboard is on them.
"use strict";

let places = null;       // of each clip: number of its sheet, row on the sheet
let sheet_rows = null;   // number of rows of each sheet

async function open_pictures() {
  places = new Int32Array((await load("places")).buffer);
  sheet_rows = new Uint8Array(facts.pictures.sheets.length);
  for (let row = 0; row < rows; row += 1) {
    const sheet = places[2 * row];
    if (sheet >= 0) sheet_rows[sheet] = Math.max(sheet_rows[sheet], places[2 * row + 1] + 1);
  }
}

/** A clip's picture. Its `show(i)` draws frame i, `play()` and `stop()` move it. */
function picture(row) {
  const { frames, sheets } = facts.pictures, sheet = places[2 * row], at = places[2 * row + 1];
  const element = make("div", { class: "picture", role: "img", "aria-label": "thumbnails" });
  if (sheet < 0) { element.classList.add("none"); element.show = element.play = element.stop = () => {}; return element; }
  element.style.backgroundImage = `url("pictures/${sheets[sheet]}")`;
  element.style.backgroundSize = `${100 * frames}% ${100 * sheet_rows[sheet]}%`;
  let timer = 0, frame = Math.floor(frames / 2);
  element.show = (i) => {
    frame = i;
    element.style.backgroundPosition = `${frames > 1 ? (100 * i) / (frames - 1) : 0}% ${sheet_rows[sheet] > 1 ? (100 * at) / (sheet_rows[sheet] - 1) : 0}%`;
    element.dataset.frame = i;
  };
  // Plays in the clip's length, but each frame for 150 to 500 ms.
  element.play = () => { if (!timer) { element.show(0); timer = setInterval(() => element.show((frame + 1) % frames), Math.min(500, Math.max(150, (1000 * seconds[row]) / frames))); } };
  element.stop = () => { clearInterval(timer); timer = 0; element.show(Math.floor(frames / 2)); };
  element.show(frame);
  return element;
}

/** A card: a picture with text below it. A click opens the clip. */
function card(row, words) {
  const seen = picture(row), state = selection.first[row];
  const text = make("span", { class: "text" }, words ?? "");
  const button = make("button", {
    type: "button", class: `card ${state === KEPT ? "kept" : state === FAILED ? "failed" : "dropped"}`, "data-row": row,
    onclick: () => open_clip(row), onmouseenter: seen.play, onmouseleave: seen.stop, onfocus: seen.play, onblur: seen.stop,
  }, seen, text);
  button.title = state === KEPT ? "kept" : state === FAILED ? "failed" : `dropped: ${dropped_label(selection.drops[state - 1].rule)}`;
  return button;
}
