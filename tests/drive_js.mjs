// Runs one scenario with the JavaScript client: what standard input asks for, in JSON; prints what came of it, in JSON.
import { readFile } from "node:fs/promises";
import { Livery, save } from "../clients/js/livery.mjs";

const asked = JSON.parse(await readFile("/dev/stdin", "utf8"));
const told = [];
const done = { told };
try {
  const livery = new Livery(asked.url, { key: asked.key ?? null, retries: asked.retries });
  const bytes = typeof asked.photo === "string" ? await readFile(asked.photo) : Buffer.alloc(asked.photo ?? 0, 7);
  const photo = asked.photo === null ? null : bytes;
  if (asked.sync) {
    done.output = await livery.runSync(photo, asked.fields);
  } else {
    const job = await livery.submit(photo, asked.fields);
    if (asked.cancel) await job.cancel();
    done.output = await job.wait({ onProgress: (progress) => told.push(progress), timeoutMs: asked.wait_ms });
  }
  if (asked.folder) done.files = await save(done.output, asked.folder, "car");
} catch (fault) {
  const { kind = fault.name, message, status, maybeSent, code, field, retryable } = fault;
  done.fault = { kind, message, status, maybeSent, code, field, retryable };
}
console.log(JSON.stringify(done));
