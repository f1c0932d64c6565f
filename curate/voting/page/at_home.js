// The booth in a packed folder, without a server: the browser stores the answers (localStorage), and the voter downloads them as a file.
// curate/voting/pack.py writes `packed`; curate/voting/votes.py imports the lines of the file.
"use strict";

const MOST_NAME = 100;  // as in curate/voting/votes.py
const HIDDEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]/u;
const QUESTION_ORDER = ["quality", "prompt"];

class AtHome {
  constructor(contest) { this.contest = contest; }

  /** The same acts as the server: start, vote, undo. */
  async ask(act, request) {
    const voter = AtHome.named(request.voter), answers = this.answers(voter);
    const make = (more) => ({ voter, time: new Date().toISOString(), id: request.id, ...more });
    if (answers.some((answer) => answer.id === request.id)) act = "start";  // a duplicate
    if (act === "vote") answers.push(make({ item: request.item, question: request.question, choice: request.choice }));
    const last = AtHome.standing(answers).at(-1);
    if (act === "undo" && last) answers.push(make({ item: last.item, question: last.question, choice: "undone" }));
    if (act !== "start") this.keep(voter, answers);
    return this.state(voter, answers, new Set(request.skip));
  }

  /** The name in normal form, as in curate/voting/votes.py. */
  static named(text) {
    const name = text.trim().replace(/\s+/gu, " ").normalize("NFC"), length = [...name].length;
    if (!name) throw new Refused("Not saved: a voter needs a name.");
    if (length > MOST_NAME) throw new Refused(`Not saved: the name has ${length} characters; the maximum is ${MOST_NAME}.`);
    if (HIDDEN.test(name)) throw new Refused("Not saved: the name has invisible characters; type it without them.");
    return name;
  }

  /** The valid answers: the last one of each comparison and question, unless it is an undo. */
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
      throw new Refused("Not saved: the storage of this browser is full or disabled. Download your answers, or open the page in another browser.");
    }
  }

  state(voter, answers, skip) {
    const given = new Set(AtHome.standing(answers).map((answer) => `${answer.item} ${answer.question}`));
    const started = new Map(answers.map((answer, i) => [answer.item, i]));
    const turn = lot(`sides ${voter}`) % 2;  // packed sides are balanced, and remain balanced when all are swapped
    const items = this.contest.items.map((item) => (turn ? { ...item, id: item.turned, left: item.right, right: item.left } : item));
    const ranked = items.filter(({ id }) => !skip.has(id)).map((item) => [started.get(item.id) ?? -1, lot(`order ${voter} ${item.id}`), item]);
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

  /** Offers the answers as a file, undone ones included. Importing it twice counts each vote once. */
  download(text) {
    const voter = AtHome.named(text), lines = this.answers(voter).map((answer) => `${JSON.stringify(answer)}\n`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
    link.download = `votes-${[...voter.replace(/[^\p{L}\p{N}_-]+/gu, "_")].slice(0, 40).join("")}.jsonl`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }
}

/** A 32-bit hash of a text (FNV-1a, then mixed as in MurmurHash3). */
function lot(text) {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) h = Math.imul(h ^ byte, 0x01000193);
  for (const [shift, factor] of [[16, 0x85ebca6b], [13, 0xc2b2ae35]]) h = Math.imul(h ^ (h >>> shift), factor);
  return (h ^ (h >>> 16)) >>> 0;
}
