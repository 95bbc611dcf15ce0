// What came of a job: the legend with its layers, the files, the facts.

import { files } from "/playground/livery.mjs";
import { sentence } from "./words.js";

const UNITS = [[1e6, "MB"], [1e3, "kB"]];

/** One row for each ink, in the palette's order, each a switch for that ink's layers. */
export function showLegend(report, toggle) {
  const rows = report.palette.map((ink) => legendRow(ink, toggle));
  document.querySelector("#legend").replaceChildren(...rows);
  document.querySelector("#legend-note").textContent = report.options.output.stacking === "stacked"
    ? "Layers are stacked: hiding one shows what lies below it."
    : "Layers meet edge to edge: hiding one shows nothing below it.";
}

function legendRow(ink, toggle) {
  const used = ink.paths > 0;
  const row = document.createElement("li");
  const label = append(row, "label", used ? "" : "unused");
  const box = append(label, "input");
  Object.assign(box, { type: "checkbox", checked: used, disabled: !used });
  box.addEventListener("change", () => toggle(ink, box.checked));
  append(label, "span", "chip").style.backgroundColor = ink.hex;
  const words = append(label, "span", "words", ink.name);
  if (!used || ink.name !== ink.hex) append(words, "small", "", used ? ink.hex : "not used");
  append(label, "data", "", percent(ink.coverage_pct));
  return row;
}

function percent(share) {
  return share > 0 && share < 0.05 ? "< 0.1 %" : `${share.toFixed(1)} %`;
}

/**
 * Offer the files for download. Those that the reply carries are checked against the size and sha256 that it states;
 * those that lie elsewhere are links.
 */
export async function showFiles(output, stem) {
  const list = document.querySelector("#files");
  for (const link of list.querySelectorAll("a[href^='blob:']")) URL.revokeObjectURL(link.href);
  const all = [...output.png, ...output.files];
  const inside = ({ url }) => url.startsWith("data:");
  const within = { ...output, png: output.png.filter(inside), files: output.files.filter(inside) };
  const carried = (await files(within, stem)).map(({ name, type, bytes }) => {
    const link = fileLink(URL.createObjectURL(new Blob([bytes], { type })), name, bytes.length);
    link.querySelector("a").download = name;
    return link;
  });
  const elsewhere = all.filter((file) => !inside(file) && /^https?:\/\//.test(file.url)).map((file) => {
    const link = fileLink(file.url, file.format ?? `PNG ${file.width} px`, file.bytes);
    Object.assign(link.querySelector("a"), { target: "_blank", rel: "noopener noreferrer" });
    return link;
  });
  list.replaceChildren(...carried, ...elsewhere);
}

function fileLink(address, name, bytes) {
  const row = document.createElement("li");
  const link = append(row, "a", "button", "");
  link.href = address;
  append(link, "span", "", name);
  const [size, unit] = UNITS.find(([least]) => bytes >= least) ?? [1, "bytes"];
  append(link, "small", "", `${(bytes / size).toFixed(size > 1 ? 1 : 0)} ${unit}`);
  return row;
}

/** What the report says of the drawing. */
export function showFacts(report) {
  const { size, certificate, timings_ms: spent, cost_estimate_usd: cost } = report;
  const facts = {
    Engine: report.engine === "studio" ? `studio, ${report.mode}, seed ${report.seed}` : "draft",
    Frame: `${size.width} × ${size.height} px`,
    Drawing: `${report.paths.toLocaleString("en")} paths, ${report.nodes.toLocaleString("en")} nodes`,
    "True to its map": certificate === null ? null : `${Math.floor(certificate.agreement_pct * 100) / 100} %`,
    "Outline tolerance": certificate === null ? null : `${certificate.tolerance_px} px`,
    "Least feature": certificate?.min_feature_mm ? `${certificate.min_feature_mm} mm` : null,
    Time: `${(spent.total / 1000).toFixed(2)} s`,
    GPU: report.gpu,
    Cost: cost === null ? null : `$${cost.toFixed(4)}`,
  };
  const list = document.querySelector("#facts");
  list.replaceChildren();
  for (const [name, value] of Object.entries(facts)) {
    if (value === null) continue;
    append(list, "dt", "", name);
    append(list, "dd", "", value);
  }
  const warnings = document.querySelector("#warnings");
  warnings.replaceChildren();
  for (const { message } of report.warnings) append(warnings, "li", "", `${sentence(message)}.`);
}

function append(parent, kind, className = "", text = "") {
  const element = document.createElement(kind);
  if (className !== "") element.className = className;
  if (text !== "") element.textContent = text;
  parent.append(element);
  return element;
}
