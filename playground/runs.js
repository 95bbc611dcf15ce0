// One job at a time: starting a job stops the one before.

/** Why a wait ended: another job took its place, or the user stopped it. */
export class Stopped extends Error {}

export class Runs {
  #livery;

  #running = null;

  /** @param {import("./livery.mjs").Livery} livery */
  constructor(livery) {
    this.#livery = livery;
  }

  /**
   * Run a job to its end.
   * @param {Blob|null} photo
   * @param {object} fields of the request.
   * @param {(progress: import("./livery.mjs").Progress) => void} onProgress
   * @returns {Promise<object>} the job's output.
   * @throws {Stopped} another job was started, or `stop` was called.
   * @throws {import("./livery.mjs").LiveryError}
   */
  async start(photo, fields, onProgress = undefined) {
    this.stop().catch(forgotten);
    const run = { ended: new AbortController(), job: null };
    this.#running = run;
    const { signal } = run.ended;
    try {
      run.job = await this.#livery.submit(photo, fields);
      if (signal.aborted) run.job.cancel().catch(forgotten);
      return await run.job.wait({ onProgress, signal });
    } finally {
      if (this.#running === run) this.#running = null;
    }
  }

  /** Stop the job that runs. Resolves once the server has taken note. */
  async stop() {
    const run = this.#running;
    this.#running = null;
    run?.ended.abort(new Stopped());
    await run?.job?.cancel();
  }
}

// A job that nobody waits for any more: where it can't be told to stop, it ends by itself.
function forgotten() {}
