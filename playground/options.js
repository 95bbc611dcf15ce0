// The form: what it makes of a request, and where it shows what a reply finds wrong.

const form = document.querySelector("#controls");

/**
 * A request's fields from the form.
 * @param {{palette: object, point: number[]|null, draft: boolean}} rest what the form alone doesn't know: the palette,
 *   the point on the vehicle in pixels, and whether it is for a draft preview.
 */
export function fieldsOf({ palette, point, draft }) {
  const { elements } = form;
  const number = (name) => Number(elements[name].value);
  const fields = {
    palette,
    engine: draft ? "draft" : elements.engine.value,
    detail: number("detail"),
    tone: number("tone"),
    line_work: number("line_work"),
    background: elements.background.value,
    subject: elements.subject.value === "point" ? (point === null ? "auto" : { point }) : elements.subject.value,
    output: outputOf(elements, draft),
  };
  if (fields.engine !== "draft") Object.assign(fields, { mode: elements.mode.value, seed: written(elements.seed) });
  return fields;
}

function outputOf(elements, draft) {
  const formats = [...elements.formats].filter(({ checked }) => checked).map(({ value }) => value);
  const output = { formats: draft ? ["svg"] : formats };
  if (elements.preset.value !== "") output.preset = elements.preset.value;
  if (elements.width_mm.value !== "") output.width_mm = written(elements.width_mm);
  // What is left out is the preset's to set.
  if (elements.tolerance_px.dataset.touched === "yes") output.tolerance_px = Number(elements.tolerance_px.value);
  return output;
}

/** A number as it stands there; what is no number is sent as text, so that the reply says what is wrong with it. */
function written({ value, valueAsNumber }) {
  return Number.isNaN(valueAsNumber) ? value : valueAsNumber;
}

/** Show a preset's own values where the form has controls for them. */
export function showPreset(name, presets) {
  const { elements } = form;
  const preset = presets[name] ?? {};
  const formats = ["svg", ...(preset.formats ?? ["png"])];
  for (const box of elements.formats) box.checked = formats.includes(box.value);
  elements.tolerance_px.dataset.touched = "no";
  elements.tolerance_px.value = preset.tolerance_px ?? elements.tolerance_px.defaultValue;
  elements.width_mm.value = "";
  elements.width_mm.placeholder = preset.width_mm === undefined ? "none: sizes are in pixels" : `${preset.width_mm}`;
  document.querySelector("#preset-note").textContent = sentences(preset).join(" · ");
  showValues();
}

function sentences({ width_mm: width, dpi, min_feature_mm: feature, trap_mm: trap, stacking, single_cut: single }) {
  return [
    width !== undefined && `${width} mm wide`,
    dpi !== undefined && `${dpi} dpi`,
    feature !== undefined && `nothing narrower than ${feature} mm`,
    trap !== undefined && `${trap} mm trap`,
    stacking === "abutting" && "shapes meet edge to edge",
    single === true && "each shared edge cut once",
  ].filter(Boolean);
}

/** Write each slider's value beside it. */
export function showValues() {
  for (const range of form.querySelectorAll(".slider input")) {
    const step = range.step.includes(".") ? range.step.split(".")[1].length : 0;
    const unit = range.name === "tolerance_px" ? " px" : "";
    range.parentElement.querySelector("output").textContent = `${Number(range.value).toFixed(step)}${unit}`;
  }
}

/** Offer the inks as background. @param {{hex: string, name: string}[]} inks */
export function showBackgrounds(inks) {
  const select = document.querySelector("#background");
  const chosen = select.value;
  const named = ({ hex, name }) => new Option(name === "" || name === hex ? hex : `${name} ${hex}`, hex);
  select.replaceChildren(new Option("Keep it", "keep"), new Option("Remove it", "remove"), ...inks.map(named));
  select.value = chosen;
  if (select.selectedIndex < 0) select.value = "keep";
}

/**
 * Mark the control that an error's field names, and say what is wrong there.
 * @returns {string|null} the control's name; null where the form has none for it.
 */
export function showFault(field, sentence) {
  const place = placeOf(field);
  if (place === null) return null;
  const folded = place.closest("details");
  if (folded !== null) folded.open = true;
  const control = place.matches("label") ? place.querySelector("input, select, textarea") : place;
  place.classList.add("faulty");
  place.scrollIntoView({ block: "nearest" });
  control.setAttribute("aria-invalid", "true");
  const text = place.querySelector(".fault");
  if (text !== null) {
    text.textContent = sentence;
    text.id ||= `${field.replace(/\W/g, "-")}-fault`;
    control.setAttribute("aria-describedby", text.id);
  }
  return nameOf(place, field);
}

function nameOf(place, field) {
  const ink = field.match(/^palette\[(\d+)\]/);
  if (ink !== null) return `Ink ${Number(ink[1]) + 1}`;
  return place.dataset.name ?? (place.querySelector("legend, span:not(.fault)") ?? place.firstChild).textContent.trim();
}

/** Take the marks away. */
export function clearFaults() {
  for (const place of document.querySelectorAll(".faulty")) place.classList.remove("faulty");
  for (const control of document.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
  for (const text of document.querySelectorAll(".fault")) text.textContent = "";
}

/** The part of the page for a field such as `output.formats[1]`: the longest name that it begins with. */
function placeOf(field) {
  const names = [...document.querySelectorAll("[data-field]")]
    .flatMap((place) => place.dataset.field.split(" ").map((name) => ({ name, place })))
    .filter(({ name }) => field === name || field.startsWith(`${name}.`) || field.startsWith(`${name}[`));
  return names.sort((a, b) => b.name.length - a.name.length)[0]?.place ?? null;
}
