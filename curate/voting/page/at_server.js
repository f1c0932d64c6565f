// The booth where `rushes vote` serves this page: every answer is sent, and is taken when the server says that it is on the disk.
"use strict";

/** An answer that will not be taken however often it is sent. The message is one sentence. */
class Refused extends Error {}

class AtServer {
  /** Sends an act (start, vote, undo) and returns what to show next. Rejects with Refused, or another error after which to try again. */
  async ask(act, told) {
    let reply;
    try {
      reply = await fetch(act, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(told) });
    } catch {
      throw new Error("The voting server does not answer. What you said last is kept here, and is sent again until it does.");
    }
    const said = await reply.text();
    if (reply.ok) return JSON.parse(said);
    let sentence = said;
    try { sentence = JSON.parse(said).error; } catch { /* plain text */ }
    if (reply.status >= 500) throw new Error(`The vote is not kept yet, and is sent again: ${sentence}`);
    throw new Refused(`Not taken: ${sentence}.`);
  }
}
