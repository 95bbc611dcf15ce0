// The playground: a photo, a palette and options in; draft previews while they change; a run for keeps at the end.

import { Livery, LiveryError } from "/playground/livery.mjs";
import { clearFaults, fieldsOf, showBackgrounds, showFault, showPreset, showValues } from "./options.js";
import { Palette } from "./palette.js";
import { readPhoto } from "./photo.js";
import { pictureOf } from "./picture.js";
import { showFacts, showFiles, showLegend } from "./results.js";
import { Runs, Stopped } from "./runs.js";
import { Stage } from "./stage.js";
import { sentence } from "./words.js";

const PREVIEW_AFTER_MS = 200; // a change may be the first of several
const PALETTE_FILE = /\.(gpl|ase|aco|csv|json|txt|hex)$/i;

const find = (selector) => document.querySelector(selector);
const form = find("#controls");
const livery = new Livery(location.origin);
const runs = new Runs(livery);
const stage = new Stage();
const facts = await (await fetched("/playground/facts.json")).json();
const palette = new Palette(facts, paletteChanged, refused);

/** @type {import("./photo.js").Photo|null} */
let photo = null;
/** @type {number[]|null} the point on the vehicle, as shares of the photo's sides */
let point = null;
let waiting = 0;
let turn = 0; // of the job that was started last; whatever an earlier one brings is no longer wanted

/** What the server holds for this page; where it can't be had the page says so. */
async function fetched(address) {
  const answer = await fetch(address).catch(() => null);
  if (answer?.ok) return answer;
  alarm("The server doesn't give the page what it needs. Is it still running? Then load the page again.");
  throw new Stopped();
}

// ---- the photo

async function takePhoto(blob, name) {
  clearFaults();
  try {
    const read = await readPhoto(blob, name);
    if (photo !== null) URL.revokeObjectURL(photo.url);
    photo = read;
  } catch (fault) {
    refused(Object.assign(fault, { field: "image" }));
    return;
  }
  point = null;
  if (form.elements.subject.value === "point") form.elements.subject.value = "auto";
  showSubject();
  stage.showPhoto(photo);
  find("#badge").hidden = true;
  find("#results").hidden = true;
  find("#make").disabled = false;
  say(photo.note || "The photo is ready.");
  preview();
}

function take(file) {
  if (PALETTE_FILE.test(file.name)) palette.readFile(file);
  else takePhoto(file, file.name);
}

async function takeSample() {
  await takePhoto(await (await fetched("/playground/sample.jpg")).blob(), "sample.jpg");
}

// ---- jobs

function fieldsNow(draft) {
  const inPixels = point === null ? null : [point[0] * photo.width, point[1] * photo.height];
  return fieldsOf({ palette: palette.value(), point: inPixels, draft });
}

function changed() {
  showValues();
  clearTimeout(waiting);
  if (photo === null) return;
  if (find("#live").checked) waiting = setTimeout(preview, PREVIEW_AFTER_MS);
  else say("The options have changed.");
}

function paletteChanged() {
  showBackgrounds(palette.known());
  changed();
}

async function preview() {
  clearTimeout(waiting);
  if (find("#live").checked) await carryOut(true);
}

async function carryOut(draft) {
  clearFaults();
  hideAlert();
  busy(draft ? "draft" : "make");
  turn += 1;
  const mine = turn;
  say(draft ? "Drawing a preview…" : "Asking for the drawing…");
  try {
    const output = await runs.start(photo.blob, fieldsNow(draft), showProgress);
    if (mine !== turn) return;
    busy(null);
    say("Checking the files…");
    await showOutput(output, draft);
  } catch (fault) {
    // Whoever stopped it says so.
    if (fault instanceof Stopped || mine !== turn) return;
    busy(null);
    refused(fault);
  }
}

function showProgress({ status, percent, message }) {
  find("#progress").value = percent;
  say(status === "IN_QUEUE" ? "Waiting for a worker…" : sentence(message ?? "working"));
}

async function showOutput(output, draft) {
  const { report } = output;
  if (output.svg !== null) stage.showDrawing(pictureOf(output.svg));
  showLegend(report, (ink, shown) => stage.toggle(ink, shown));
  showFacts(report);
  palette.drawnWith(report.palette);
  const badge = find("#badge");
  badge.hidden = false;
  badge.textContent = draft ? "Draft preview" : `${sentence(report.engine)} drawing`;
  find("#results").hidden = false;
  find("#files-note").textContent = [
    draft && "Of the preview. “Make it” makes every file chosen under Output.",
    output.svg === null && "The SVG is too large to show here; it is among these files.",
  ].filter(Boolean).join(" ");
  await showFiles(output, photo.stem);
  say(`${draft ? "Preview" : "Drawing"} ready in ${(report.timings_ms.total / 1000).toFixed(1)} s.`);
}

async function cancel() {
  busy(null);
  say("Cancelling…");
  try {
    await runs.stop();
    say("Cancelled.");
  } catch {
    alarm("The server didn't confirm the cancelling: the job may still run.");
  }
  find("#make").focus();
}

// ---- what is said

function busy(what) {
  const making = what === "make";
  find("#progress").hidden = what === null;
  find("#progress").value = 0;
  find("#make").hidden = making;
  find("#cancel").hidden = !making;
  find("#all-options").disabled = making;
  find("#view").setAttribute("aria-busy", what !== null);
  if (making) find("#cancel").focus();
}

function say(text) {
  find("#doing").textContent = text;
}

function alarm(text) {
  find("#alert").textContent = text;
  find("#alert").hidden = false;
}

function hideAlert() {
  find("#alert").hidden = true;
  find("#alert").textContent = "";
}

/** Say what went wrong, at the control that it is about where there is one. */
function refused(fault) {
  const field = fault.field ?? null;
  const text = told(fault);
  say("");
  const name = field === null ? null : showFault(field, text);
  alarm(name === null ? text : `${name}: ${text}`);
  if (field?.startsWith("palette")) palette.point(field);
}

/** For what was said already. */
function stopped(fault) {
  if (!(fault instanceof Stopped)) throw fault;
}

/** The reply's own sentence, without the code and the field in front, which the page shows in its own way. */
function told(fault) {
  if (fault.kind === "unreachable") return "The server doesn't answer. Is it still running?";
  if (!(fault instanceof LiveryError)) return fault.field ? fault.message : `The page failed: ${fault.message}`;
  const said = fault.message.replace(/^[A-Za-z]+: /, "");
  return sentence(said.startsWith(`${fault.field}: `) ? said.slice(fault.field.length + 2) : said);
}

// ---- the vehicle

function chooseSubject() {
  if (form.elements.subject.value !== "point") {
    point = null;
    stage.pin(null);
  } else if (photo !== null) {
    stage.pick((picked) => {
      point = picked;
      if (picked === null) {
        form.elements.subject.value = "auto";
        stage.pin(null);
      }
      showSubject();
      changed();
    });
  }
  showSubject();
}

function showSubject() {
  const picking = form.elements.subject.value === "point" && point === null;
  const [x, y] = point === null ? [] : [Math.round(point[0] * photo.width), Math.round(point[1] * photo.height)];
  const place = point === null ? "" : `At ${x}, ${y} px.`;
  find("#subject-note").textContent = picking
    ? "Click the vehicle in the photo; or move the mark with the arrow keys and press Enter. Escape leaves it."
    : place;
}

// ---- the engines

async function askHealth() {
  const said = find("#health");
  if (facts.remote) {
    said.textContent = "Runs on the endpoint behind this page; previews count as jobs there.";
    return;
  }
  said.textContent = "The worker is starting…";
  try {
    const job = await livery.submit(null, { action: "ping" });
    const health = await job.wait();
    const studio = health.engines.studio.ready;
    said.textContent = `Draft engine ready${studio ? ", studio engine ready" : ""}`;
    if (!studio) find("#engine-note").textContent = `Studio is not ready here: ${health.engines.studio.reason}.`;
  } catch (fault) {
    said.textContent = told(fault);
  }
}

// ---- listening

function listen() {
  find("#photo-file").addEventListener("change", ({ target }) => {
    if (target.files.length > 0) take(target.files[0]);
    target.value = "";
  });
  find("#change-photo").addEventListener("click", () => find("#photo-file").click());
  find("#sample").addEventListener("click", () => takeSample().catch(stopped));
  addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData.files.length > 0) take(clipboardData.files[0]);
  });
  for (const name of ["dragover", "dragenter"]) {
    addEventListener(name, (event) => {
      event.preventDefault();
      find("#view").classList.add("over");
    });
  }
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) find("#view").classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    find("#view").classList.remove("over");
    if (event.dataTransfer.files.length > 0) take(event.dataTransfer.files[0]);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (photo !== null) carryOut(false);
  });
  find("#cancel").addEventListener("click", cancel);
  find("#live").addEventListener("change", changed);
  form.addEventListener("input", optionChanged);
  for (const [id, shown] of [["#all-on", true], ["#all-off", false]]) {
    find(id).addEventListener("click", () => {
      for (const box of document.querySelectorAll("#legend input:not(:disabled)")) {
        if (box.checked !== shown) box.click();
      }
    });
  }
}

function optionChanged({ target }) {
  if (target.name === "subject") {
    chooseSubject();
    if (target.value === "point") return;
  } else if (target.name === "preset") showPreset(target.value, facts.presets);
  else if (target.name === "tolerance_px") target.dataset.touched = "yes";
  else if (["engine", "mode", "seed", "formats", ""].includes(target.name)) return; // nothing that a preview shows
  if (target.name !== "source") changed();
}

for (const name of Object.keys(facts.presets)) find("#preset").append(new Option(sentence(name), name));
showPreset("", facts.presets);
showBackgrounds(palette.known());
listen();
askHealth();
