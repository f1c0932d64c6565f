// The booth on a page served by `rushes vote`: every answer is sent, and is saved when the server confirms that it is on the disk.
"use strict";

/** The server rejects the answer for good; sending it again is useless. The message is one sentence. */
class Refused extends Error {}

class AtServer {
  /** Sends an act (start, vote, undo) and returns the next state. Rejects with Refused, or with another error after which to retry. */
  async ask(act, request) {
    let reply;
    try {
      reply = await fetch(act, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request) });
    } catch {
      throw new Error("The voting server does not answer. Your last answer is kept on this page and sent again until the server answers.");
    }
    const body = await reply.text();
    if (reply.ok) return JSON.parse(body);
    let sentence = body;
    try { sentence = JSON.parse(body).error; } catch { /* plain text */ }
    if (reply.status >= 500) throw new Error(`The vote is not saved yet and is sent again: ${sentence}`);
    throw new Refused(`Not saved: ${sentence}.`);
  }
}
