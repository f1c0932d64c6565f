// The voter's page: asks for a name, shows a pair and a question, sends the answer, and confirms it once it is saved.
// Text from a contest only ever becomes text nodes.
"use strict";

const byId = (id) => document.getElementById(id);
const QUESTIONS = {
  quality: ["Question 1 of 2: quality", "Which video looks better?", "Sharper, steadier, more natural in shape and motion. Ignore the prompt."],
  prompt: ["Question 2 of 2: the prompt", "Which video follows the prompt better?", "It shows what the prompt describes. Ignore how good it looks."],
};
const WORDS = { left: "left", right: "right", tie: "equal" };
const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", t: "tie" };
const AGAIN_MS = 2000;

const booth = packed ? new AtHome(packed) : new AtServer();
const pair = new Pair(byId("left"), byId("right"), (sentence) => { if (sentence) report(sentence); else draw_tools(); });
let voter = remembered("voter") ?? "";
let skip = remembered("skip") ?? [];
let state = null;
let waiting = remembered("waiting");  // an act that was sent and is not confirmed yet
let sending = false;
let timer = 0;
let resting = false;  // after "Stop for now"

/** A value that survives a reload of this window, if the browser allows storage. */
function remembered(what) {
  try { return JSON.parse(sessionStorage.getItem(`rushes vote ${what}`)); } catch { return null; }
}
function remember(what, value) {
  try { sessionStorage.setItem(`rushes vote ${what}`, JSON.stringify(value)); } catch { /* kept only until the reload */ }
}

/** A random id; `crypto.randomUUID` does not exist on plain http. */
const new_id = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

function report(sentence, may_send = false) {
  byId("problem").textContent = sentence;
  byId("again").hidden = !may_send;
  byId("message").hidden = !sentence;
}

function show(screen) {
  for (const id of ["ask", "booth", "end"]) byId(id).hidden = id !== screen;
  byId("foot").hidden = screen === "ask";
  for (const button of document.querySelectorAll(".download")) button.hidden = !packed;
}

/** Sends an act, again and again until it is confirmed or refused. `confirmation` is shown when it is confirmed. */
function act(name, request, confirmation) {
  if (waiting || sending) return;
  waiting = { name, confirmation, request: { voter, id: new_id(), ...request } };
  if (name !== "start") remember("waiting", waiting);
  send();
}

async function send() {
  clearTimeout(timer);
  if (sending || !waiting) return;
  sending = true;
  draw_tools();
  try {
    state = await booth.ask(waiting.name, { ...waiting.request, skip });
    settle(waiting.confirmation);
  } catch (error) {
    if (error instanceof Refused) refuse(error.message);
    else { report(error.message, true); timer = setTimeout(send, AGAIN_MS); }
  }
  sending = false;
  draw();
}

function settle(confirmation) {
  waiting = null;
  remember("waiting", null);
  report("");
  byId("confirmed").textContent = confirmation ?? "";
}

function refuse(sentence) {
  const first = !state;
  settle("");
  report(sentence);
  if (first) { voter = ""; remember("voter", null); }  // an invalid name
}

function draw() {
  document.body.dataset.done = state ? state.done : "";
  if (!voter || !state) { if (!waiting) show("ask"); return; }
  const { done, total, task } = state;
  byId("voter").textContent = voter;
  byId("bar").max = total;
  byId("bar").value = done;
  byId("count").textContent = `${done} of ${total} answers`;
  if (task && !resting) draw_task(task);
  else draw_end(done, total, task);
  draw_tools();
}

function draw_task(task) {
  const [which, question, meaning] = QUESTIONS[task.question];
  byId("which").textContent = which;
  byId("question").textContent = question;
  byId("meaning").textContent = meaning;
  if (byId("prompt").textContent !== task.prompt) { byId("prompt").textContent = task.prompt; byId("prompt").scrollTop = 0; }
  byId("booth").dataset.question = task.question;
  show("booth");
  pair.show(task.left, task.right);
}

function draw_end(done, total, task) {
  pair.show("", "");
  const skipped = skip.length ? " You skipped some pairs; a new window shows them again." : "";
  byId("summary").textContent = done >= total ? `All ${total} answers are saved.`
    : `${done} of ${total} answers are saved.${task ? " You can continue at any time; every answer helps." : skipped}`;
  byId("continue").hidden = !task;
  byId("send").hidden = !packed;
  show("end");
}

/** Enables and disables the buttons. */
function draw_tools() {
  const idle = !waiting && !sending, can_answer = idle && pair.ready && !!state?.task;
  document.body.dataset.ready = can_answer ? "yes" : "no";
  for (const button of document.querySelectorAll("[data-choice]")) button.disabled = !can_answer;
  for (const button of document.querySelectorAll(".undo")) button.disabled = !idle || !state?.done;
  byId("skip").disabled = !idle;
  byId("change").disabled = !idle;
  byId("pause-word").textContent = pair.paused ? "Play" : "Pause";
}

const answer = (choice) => {
  if (byId("booth").hidden || document.body.dataset.ready !== "yes") return;
  const { item, question } = state.task;
  act("vote", { item, question, choice }, `Saved: ${WORDS[choice]}.`);
};
const undo = () => { if (state?.done) { resting = false; act("undo", {}, "The last answer is undone."); } };
const pass = () => {
  if (waiting || sending || !state?.task) return;
  skip = [...skip, state.task.item].slice(-2000);
  remember("skip", skip);
  act("start", {}, "Skipped.");
};

function enter(name) {
  voter = name;
  remember("voter", voter);
  state = null;
  if (waiting?.request.voter === voter) send(); else { waiting = null; act("start", {}); }
}

for (const button of document.querySelectorAll("[data-choice]")) button.addEventListener("click", () => answer(button.dataset.choice));
for (const button of document.querySelectorAll(".undo")) button.addEventListener("click", undo);
for (const button of document.querySelectorAll("button")) button.addEventListener("click", ({ detail }) => { if (detail) button.blur(); });  // so that keys go to the page
byId("skip").addEventListener("click", pass);
byId("pause").addEventListener("click", () => pair.pause(!pair.paused));
byId("again").addEventListener("click", send);
byId("enough").addEventListener("click", () => { resting = true; draw(); });
byId("continue").addEventListener("click", () => { resting = false; draw(); });
for (const button of document.querySelectorAll(".download")) button.addEventListener("click", () => booth.download(voter));
byId("change").addEventListener("click", () => { voter = ""; state = null; skip = []; resting = false; remember("voter", null); remember("skip", null); report(""); pair.show("", ""); draw(); byId("name").focus(); });
byId("who").addEventListener("submit", (event) => {
  event.preventDefault();
  report("");
  enter(byId("name").value.trim().replace(/\s+/gu, " "));
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.tagName === "INPUT" || byId("foot").hidden) return;
  const prompt = byId("prompt"), scrolls = event.target === prompt && prompt.scrollHeight > prompt.clientHeight && event.key === "ArrowDown";
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const does = scrolls ? null : KEYS[key] ? () => answer(KEYS[key]) : { u: undo, Backspace: undo, s: byId("booth").hidden ? null : pass }[key]
    ?? (key === " " && event.target.tagName !== "BUTTON" && event.target !== prompt ? () => pair.pause(!pair.paused) : null);
  if (!does) return;
  event.preventDefault();
  does();
});

if (voter) enter(voter); else draw();
