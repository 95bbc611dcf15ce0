/**
 * A client of Livery in one file, for browsers and for Node 18 or newer; no dependencies.
 *
 *   import { Livery, files, save } from "./livery.mjs";
 *
 *   const livery = new Livery("https://api.runpod.ai/v2/ENDPOINT", { key });   // or new Livery("http://127.0.0.1:8000")
 *   const job = await livery.submit(photo, { palette: ["#111318", "#E9ECEE", "#D7263D"], detail: 0.6 });
 *   const output = await job.wait({ onProgress: (p) => console.log(p.status, p.phase, p.percent) });
 *   await save(output, "out", "car");                   // Node: car.svg, car-2048.png, …
 *   for (const file of await files(output, "car")) …    // browser: { name, type, bytes }
 *
 * `photo` is a Blob, a File, an ArrayBuffer or a typed array; null where the fields hold an `image_url`.
 *
 * Every failure is a LiveryError with a `kind`: "too_large" (nothing was sent), "unreachable" (`maybeSent`), "refused"
 * (`status`), "failed" (`code`, `field`, `retryable`), "cancelled", "timed_out", "still_running", "damaged". An AbortSignal
 * that aborts ends a wait with its own reason; the job goes on until `cancel()`.
 *
 * Answers of 429 and 5xx are tried again with growing, random pauses, or after what Retry-After says.
 *
 * A key in a web page is everybody's key: in a browser, talk to a server of your own that holds it.
 */

export const MAX_PHOTO_BYTES = 20_000_000;
export const MAX_RUN_BYTES = 10_000_000;
export const MAX_RUNSYNC_BYTES = 20_000_000;

const RETRIED = new Set([429, 500, 502, 503, 504]);
const RETRYABLE_CODES = new Set([
  "OutOfMemory", "DeadlineExceeded", "VolumeFull", "UploadFailed", "Cancelled", "DeviceLost",
]);
const LOOPBACK = new Set(["127.0.0.1", "[::1]", "localhost"]);

/** @typedef {{status: string, phase: string|null, percent: number, message: string|null}} Progress */
/** @typedef {{attempts: number, firstPauseMs: number, longestPauseMs: number}} Retries */
/** @typedef {{name: string, type: string, bytes: Uint8Array}} NamedFile */

/** @type {Retries} */
const RETRIES = { attempts: 5, firstPauseMs: 500, longestPauseMs: 30_000 };

export class LiveryError extends Error {
  /**
   * @param {string} kind
   * @param {string} message
   * @param {{status?: number, maybeSent?: boolean, code?: string, field?: string|null, retryable?: boolean}} details
   */
  constructor(kind, message, details = {}) {
    super(message);
    this.name = "LiveryError";
    this.kind = kind;
    Object.assign(this, details);
  }
}

/** An endpoint. */
export class Livery {
  #key;

  /**
   * @param {string} url `https://api.runpod.ai/v2/ENDPOINT`, or the address of a local server.
   * @param {{key?: string|null, timeoutMs?: number, retries?: Partial<Retries>}} [options]
   */
  constructor(url, { key = null, timeoutMs = 120_000, retries = {} } = {}) {
    const { protocol, hostname } = new URL(url);
    if (protocol !== "https:" && protocol !== "http:") throw new TypeError("url must be an http:// or https:// address");
    if (key !== null && protocol === "http:" && !LOOPBACK.has(hostname)) {
      throw new TypeError("a key is not sent over plain http; use https");
    }
    this.url = url.replace(/\/+$/, "");
    this.timeoutMs = timeoutMs;
    this.retries = { ...RETRIES, ...retries };
    this.#key = key;
  }

  /** Queue a job. @returns {Promise<Job>} */
  async submit(photo, fields = {}) {
    const body = await requestBody(photo, fields, MAX_RUN_BYTES, "use runSync, a smaller photo, or image_url");
    const answer = await this.call("POST", "run", body);
    return new Job(this, answer.id);
  }

  /** Run a job and wait for its output in the same request. Takes twice the size that `submit` takes. */
  async runSync(photo, fields = {}) {
    const body = await requestBody(photo, fields, MAX_RUNSYNC_BYTES, "use a smaller photo, or image_url");
    const answer = await this.call("POST", "runsync", body);
    return outputOf(answer) ?? new Job(this, answer.id).wait();
  }

  /** A job that was submitted before. */
  job(id) {
    return new Job(this, id);
  }

  /** One request to the endpoint, with its retries. @returns {Promise<any>} */
  async call(method, path, body = undefined) {
    const headers = { Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (this.#key !== null) headers.Authorization = `Bearer ${this.#key}`;
    // A redirect would carry the key to another host.
    const text = await attempt(`${this.url}/${path}`, { method, headers, body, redirect: "error" }, this.timeoutMs,
      this.retries, (answer) => answer.text());
    const answer = parsed(text);
    if (typeof answer?.id !== "string") {
      throw new LiveryError("refused", "the answer is not one of a RunPod endpoint; is the address right?", { status: 200 });
    }
    return answer;
  }
}

/** A job on an endpoint. */
export class Job {
  /** @param {Livery} livery @param {string} id */
  constructor(livery, id) {
    this.livery = livery;
    this.id = id;
  }

  /** What the platform says of it now, unread. */
  status() {
    return this.livery.call("GET", `status/${encodeURIComponent(this.id)}`);
  }

  /**
   * The job's output, as in schema.json.
   * @param {{onProgress?: (progress: Progress) => void, timeoutMs?: number|null, signal?: AbortSignal}} [options]
   */
  async wait({ onProgress, timeoutMs = null, signal } = {}) {
    const began = Date.now();
    let told = { status: "", phase: null, percent: 0, message: null };
    let pauseMs = 250;
    for (;;) {
      signal?.throwIfAborted();
      const answer = await this.status();
      const output = outputOf(answer);
      if (output !== null) return output;
      const now = progressOf(answer, told);
      if (JSON.stringify(now) !== JSON.stringify(told)) {
        pauseMs = 250;
        onProgress?.(now);
      }
      told = now;
      if (timeoutMs !== null && Date.now() - began + pauseMs > timeoutMs) {
        throw new LiveryError("still_running", `job ${this.id} is ${told.status} after ${timeoutMs / 1000} s`);
      }
      await sleep(pauseMs, signal);
      pauseMs = Math.min(pauseMs * 1.3, 2000);
    }
  }

  /** Stop it; a job that has ended stays as it is. */
  async cancel() {
    await this.livery.call("POST", `cancel/${encodeURIComponent(this.id)}`, "{}");
  }
}

/**
 * Every file of an output, those behind links fetched, each checked against the size and sha256 that the reply states.
 * @returns {Promise<NamedFile[]>}
 */
export async function files(output, stem = "livery") {
  const found = [];
  const add = (name, type, bytes) => found.push({ name: freeName(name, found), type, bytes });
  if (output.svg !== null && output.svg !== undefined) add(`${stem}.svg`, "image/svg+xml", utf8(output.svg));
  for (const file of [...(output.png ?? []), ...(output.files ?? [])]) {
    add(`${stem}${endingOf(file)}`, typeOf(file), await fetched(file));
  }
  add(`${stem}.json`, "application/json", utf8(`${JSON.stringify(output.report ?? null, null, 1)}\n`));
  return found;
}

/** Node: write every file of an output. @returns {Promise<string[]>} the paths */
export async function save(output, folder, stem = "livery") {
  const { mkdir, writeFile, rename } = await import("node:fs/promises");
  const { join } = await import("node:path");
  const named = await files(output, stem);
  await mkdir(folder, { recursive: true });
  const paths = [];
  for (const { name, bytes } of named) {
    const path = join(folder, name);
    await writeFile(`${path}.part`, bytes);
    await rename(`${path}.part`, path);
    paths.push(path);
  }
  return paths;
}

async function requestBody(photo, fields, limit, advice) {
  const request = { ...fields };
  if (photo !== null && photo !== undefined) {
    const size = photo.size ?? photo.byteLength;
    if (size > MAX_PHOTO_BYTES) throw tooLarge("the photo", size, MAX_PHOTO_BYTES, "save it smaller");
    const encoded = Math.ceil(size / 3) * 4;
    if (encoded > limit) throw tooLarge("the photo in base64", encoded, limit, advice);
    request.image = base64(await bytesOf(photo));
  }
  const body = JSON.stringify({ input: request });
  const size = utf8(body).length;
  if (size > limit) throw tooLarge("the request", size, limit, advice);
  return body;
}

function tooLarge(what, size, limit, advice) {
  const message = `${what} takes ${(size / 1e6).toFixed(1)} MB, the limit is ${limit / 1e6} MB: ${advice}`;
  return new LiveryError("too_large", message);
}

async function bytesOf(photo) {
  if (typeof photo.arrayBuffer === "function") return new Uint8Array(await photo.arrayBuffer());
  if (ArrayBuffer.isView(photo)) return new Uint8Array(photo.buffer, photo.byteOffset, photo.byteLength);
  return new Uint8Array(photo);
}

function base64(bytes) {
  const parts = [];
  // A call takes only so many arguments; a multiple of three keeps the pieces joinable.
  for (let at = 0; at < bytes.length; at += 24_576) {
    parts.push(btoa(String.fromCharCode.apply(null, bytes.subarray(at, at + 24_576))));
  }
  return parts.join("");
}

function utf8(text) {
  return new TextEncoder().encode(text);
}

/** The output of a finished job, null while it is not finished; throws where it ended otherwise. */
function outputOf(answer) {
  const { status, output } = answer;
  if (status === "IN_QUEUE" || status === "IN_PROGRESS") return null;
  if (status === "FAILED" || answer.error) throw failed(answer);
  if (status === "CANCELLED") throw new LiveryError("cancelled", "the job was cancelled");
  if (status === "TIMED_OUT") {
    throw new LiveryError("timed_out", "the platform ended the job: its execution timeout, or its time to live");
  }
  if (status !== "COMPLETED" || typeof output !== "object" || output === null) {
    const message = `the platform says ${status} and hands over no output`;
    throw new LiveryError("failed", message, { code: "Unknown", field: null, retryable: false });
  }
  return output;
}

function failed({ error, output }) {
  const details = typeof output === "object" && output !== null ? output : {};
  const message = String(error || details.error || "the job failed and the platform does not say why");
  const code = details.code ?? message.match(/^([A-Za-z]+):/)?.[1] ?? "Unknown";
  const retryable = details.retryable ?? RETRYABLE_CODES.has(code);
  return new LiveryError("failed", message, { code, field: details.field ?? null, retryable });
}

/** @returns {Progress} */
function progressOf(answer, told) {
  const news = typeof answer.output === "object" && answer.output !== null ? answer.output : {};
  const percent = typeof news.percent === "number" ? Math.max(told.percent, news.percent) : told.percent;
  return { status: answer.status, phase: news.phase ?? told.phase, percent, message: news.message ?? null };
}

/** What follows the stem in a file's name; nothing of the reply can lead out of the folder. */
function endingOf(file) {
  if (file.width !== undefined) return `-${Math.trunc(Number(file.width))}.png`;
  const suffix = file.format === "separations" ? "pdf" : String(file.format).replace(/[^a-z0-9]/g, "");
  if (file.ink === null || file.ink === undefined) return `.${suffix}`;
  return `-${String(file.ink).replace(/[^\p{L}\p{N}_-]+/gu, "-").replace(/^-+|-+$/g, "")}.${suffix}`;
}

function typeOf(file) {
  if (file.width !== undefined) return "image/png";
  return { svg: "image/svg+xml", dxf: "image/vnd.dxf" }[file.format] ?? "application/pdf";
}

function freeName(name, found) {
  const taken = new Set(found.map((file) => file.name.toLowerCase()));
  const dot = name.lastIndexOf(".");
  let free = name;
  for (let number = 2; taken.has(free.toLowerCase()); number += 1) {
    free = `${name.slice(0, dot)}-${number}${name.slice(dot)}`;
  }
  return free;
}

async function fetched(file) {
  const url = String(file.url);
  if (!/^(data:|https?:\/\/)/.test(url)) throw new LiveryError("damaged", "a file's address is neither https nor data:");
  // Links are signed: no key goes along, to whatever host they name.
  const buffer = await attempt(url, {}, 120_000, RETRIES, (answer) => answer.arrayBuffer());
  const bytes = new Uint8Array(buffer);
  if (bytes.length !== file.bytes || (await sha256(bytes)) !== file.sha256) {
    throw new LiveryError("damaged", `${bytes.length} bytes arrived that are not those the reply describes`);
  }
  return bytes;
}

async function sha256(bytes) {
  // Node 18 has it in a module only, and a page that came over plain http has none.
  const subtle = globalThis.crypto?.subtle ?? (await import("node:crypto")).webcrypto.subtle;
  const digest = new Uint8Array(await subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function attempt(url, options, timeoutMs, retries, read) {
  for (let number = 1; ; number += 1) {
    let fault;
    let retryAfter = null;
    try {
      const answer = await fetch(url, { ...options, signal: AbortSignal.timeout(timeoutMs) });
      if (answer.ok) return await read(answer);
      fault = new LiveryError("refused", `HTTP ${answer.status}: ${await reasonOf(answer)}`, { status: answer.status });
      if (!RETRIED.has(answer.status)) throw fault;
      retryAfter = answer.headers.get("Retry-After");
    } catch (broken) {
      if (broken instanceof LiveryError) throw broken;
      // A new job is queued once only: what may have arrived is not sent again.
      const maybeSent = !["ECONNREFUSED", "ENOTFOUND"].includes(broken.cause?.code);
      fault = new LiveryError("unreachable", `no answer: ${broken.cause?.message ?? broken.message}`, { maybeSent });
      if (options.method === "POST" && maybeSent) throw fault;
    }
    if (number >= retries.attempts) throw fault;
    await sleep(pauseBefore(number, retryAfter, retries));
  }
}

function pauseBefore(failures, retryAfter, { firstPauseMs, longestPauseMs }) {
  if (retryAfter !== null && /^\s*[0-9]{1,6}\s*$/.test(retryAfter)) {
    return Math.min(Number(retryAfter) * 1000, longestPauseMs);
  }
  return Math.min(firstPauseMs * 2 ** (failures - 1), longestPauseMs) * (0.5 + Math.random() / 2);
}

async function reasonOf(answer) {
  if (answer.status === 401) return "the key is missing or wrong";
  if (answer.status === 404) return "no such endpoint, or the job is no longer kept";
  const text = await answer.text().catch(() => "");
  const told = parsed(text)?.error;
  if (typeof told === "string") return told;
  return text.replace(/\s+/g, " ").trim().slice(0, 300) || answer.statusText;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function sleep(ms, signal = undefined) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", stop, { once: true });
    function done() {
      signal?.removeEventListener("abort", stop);
      resolve();
    }
    function stop() {
      clearTimeout(timer);
      reject(signal.reason);
    }
  });
}
