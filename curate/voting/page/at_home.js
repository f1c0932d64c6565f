// The booth in a packed folder, without a server of ours: answers are kept by the browser (localStorage) and downloaded as a file.
// `packed` is what curate/voting/pack.py wrote; a line of the file is what curate/voting/votes.py takes in.
"use strict";

const MOST_NAME = 100;  // as in curate/voting/votes.py
const HIDDEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]/u;
const QUESTION_ORDER = ["quality", "prompt"];

class AtHome {
  constructor(contest) { this.contest = contest; }

  /** As the server's: start, vote, undo. */
  async ask(act, told) {
    const voter = AtHome.named(told.voter), answers = this.answers(voter);
    const make = (more) => ({ voter, time: new Date().toISOString(), id: told.id, ...more });
    if (answers.some((answer) => answer.id === told.id)) act = "start";  // it came twice
    if (act === "vote") answers.push(make({ item: told.item, question: told.question, choice: told.choice }));
    const last = AtHome.standing(answers).at(-1);
    if (act === "undo" && last) answers.push(make({ item: last.item, question: last.question, choice: "undone" }));
    if (act !== "start") this.keep(voter, answers);
    return this.state(voter, answers, new Set(told.skip));
  }

  /** The name in one spelling. */
  static named(text) {
    const name = text.trim().replace(/\s+/gu, " ").normalize("NFC"), length = [...name].length;
    if (!name) throw new Refused("Not taken: a voter needs a name.");
    if (length > MOST_NAME) throw new Refused(`Not taken: a voter's name may have ${MOST_NAME} characters, and this one has ${length}.`);
    if (HIDDEN.test(name)) throw new Refused("Not taken: a voter's name may not have characters that cannot be seen.");
    return name;
  }

  /** What the last line of each comparison and question says, unless it takes an answer back. */
  static standing(answers) {
    const found = new Map();
    for (const answer of answers) {
      const key = `${answer.item} ${answer.question}`;
      found.delete(key);
      if (answer.choice !== "undone") found.set(key, answer);
    }
    return [...found.values()];
  }

  place(voter) { return JSON.stringify(["rushes vote", this.contest.contest, voter]); }

  answers(voter) {
    try { return JSON.parse(localStorage.getItem(this.place(voter)) ?? "[]"); } catch { return []; }
  }

  keep(voter, answers) {
    try { localStorage.setItem(this.place(voter), JSON.stringify(answers)); } catch {
      throw new Refused("Not taken: this browser keeps nothing more for this page. Download your answers, or open it in another browser.");
    }
  }

  state(voter, answers, skip) {
    const given = new Set(AtHome.standing(answers).map((answer) => `${answer.item} ${answer.question}`));
    const begun = new Map(answers.map((answer, i) => [answer.item, i]));
    const turn = lot(`sides ${voter}`) % 2;  // packed sides are balanced, and so are all of them turned
    const items = this.contest.items.map((item) => (turn ? { ...item, id: item.turned, left: item.right, right: item.left } : item));
    const ranked = items.filter(({ id }) => !skip.has(id)).map((item) => [begun.get(item.id) ?? -1, lot(`order ${voter} ${item.id}`), item]);
    ranked.sort((a, b) => b[0] - a[0] || a[1] - b[1]);
    const state = { done: given.size, total: 2 * items.length, task: null };
    for (const [, , { id, prompt, left, right }] of ranked) {
      const question = QUESTION_ORDER.find((one) => !given.has(`${id} ${one}`));
      if (!question) continue;
      state.task = { item: id, question, prompt: this.contest.prompts[prompt], left, right };
      break;
    }
    return state;
  }

  /** Offers the answers as a file. Everything is in it, also what was taken back: taking it in twice counts once. */
  download(text) {
    const voter = AtHome.named(text), lines = this.answers(voter).map((answer) => `${JSON.stringify(answer)}\n`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
    link.download = `votes-${[...voter.replace(/[^\p{L}\p{N}_-]+/gu, "_")].slice(0, 40).join("")}.jsonl`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }
}

/** A number of 32 bits drawn from a text, always the same (FNV-1a, then mixed as in MurmurHash3). */
function lot(text) {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) h = Math.imul(h ^ byte, 0x01000193);
  for (const [shift, factor] of [[16, 0x85ebca6b], [13, 0xc2b2ae35]]) h = Math.imul(h ^ (h >>> shift), factor);
  return (h ^ (h >>> 16)) >>> 0;
}
