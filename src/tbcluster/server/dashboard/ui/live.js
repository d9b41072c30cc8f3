// The stream of views: kept open, and opened again.

import { ask, events, KeyNeeded, refusal } from "./api.js";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8000;
// A view comes each second: so long a silence is a connection that nobody told us is dead.
const SILENCE_MS = 10000;

export class Live {
  /** onView is given each view; onState "live", "lost" (with why) or "key". */
  constructor(onView, onState) {
    this.onView = onView;
    this.onState = onState;
    this.pauseMs = FIRST_PAUSE_MS;
    this.timer = null;
  }

  /** Open it now, whatever was waited for. */
  async open() {
    clearTimeout(this.timer);
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    try {
      await this.read(abort);
      this.again("the server ended the stream");
    } catch (error) {
      if (this.abort !== abort) return;
      if (error instanceof KeyNeeded) this.onState("key");
      else this.again(error.name === "AbortError" ? "nothing came for a while" : error.message);
    }
  }

  async read(abort) {
    let watchdog = setTimeout(() => abort.abort(), SILENCE_MS);
    let isNew = true;
    try {
      const answer = await ask("live", { signal: abort.signal });
      if (!answer.ok) throw new Error(await refusal(answer));
      for await (const data of events(answer)) {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => abort.abort(), SILENCE_MS);
        this.pauseMs = FIRST_PAUSE_MS;
        // Once: a view says nothing of a key that another request was refused with since.
        if (isNew) this.onState("live");
        isNew = false;
        this.onView(JSON.parse(data));
      }
    } finally {
      clearTimeout(watchdog);
    }
  }

  again(why) {
    this.onState("lost", why);
    this.timer = setTimeout(() => this.open(), this.pauseMs);
    this.pauseMs = Math.min(this.pauseMs * 2, LONGEST_PAUSE_MS);
  }
}
