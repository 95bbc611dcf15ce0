// The picture area: photo over illustration with a divider, zoom, nodes, and the point that names the vehicle.

import { dotsOver, nodesOf } from "./picture.js";

const MOST_NODES = 20_000;
const STEP = 0.02; // of the photo's side, for each press of an arrow key

export class Stage {
  #element = document.querySelector("#stage");

  #view = document.querySelector("#view");

  #drawing = document.querySelector("#drawing");

  #nodes = document.querySelector("#nodes");

  #photo = document.querySelector("#photo");

  #cut = document.querySelector("#cut");

  #pin = document.querySelector("#pin");

  #note = document.querySelector("#view-note");

  #nodesButton = document.querySelector("#show-nodes");

  #picked = null;

  #crosshair = [0.5, 0.5];

  constructor() {
    this.#cut.addEventListener("input", () => this.#showCut());
    this.#nodesButton.addEventListener("click", () => {
      this.#nodesButton.setAttribute("aria-pressed", this.#nodesButton.getAttribute("aria-pressed") !== "true");
      this.#showNodes();
    });
    for (const button of document.querySelectorAll("button[data-zoom]")) {
      button.addEventListener("click", () => this.#zoom(button));
    }
    this.#listenToDrags();
    this.#listenToPicks();
    this.#showCut();
  }

  /** Show a photo, with nothing drawn of it yet. @param {import("./photo.js").Photo} photo */
  showPhoto({ url, width, height }) {
    document.querySelector("#drop").hidden = true;
    document.querySelector("#tools").hidden = false;
    this.#element.hidden = false;
    this.#view.tabIndex = 0;
    this.#photo.src = url;
    this.#element.style.setProperty("--aspect", width / height);
    this.#drawing.replaceChildren();
    this.#nodes.replaceChildren();
    this.#element.classList.add("undrawn");
    this.#crosshair = [0.5, 0.5];
    this.pin(null);
  }

  /** Show a drawing beneath the photo. @param {SVGSVGElement} picture */
  showDrawing(picture) {
    this.#drawing.replaceChildren(picture);
    this.#element.classList.remove("undrawn");
    this.#showNodes();
  }

  /** Show or hide the layers of one ink. */
  toggle(ink, shown) {
    const layers = [...this.#drawing.querySelectorAll("g")];
    layers.forEach((layer, i) => {
      if (layer.dataset.ink !== ink.name || layer.getAttribute("fill") !== ink.hex) return;
      layer.classList.toggle("off", !shown);
      this.#nodes.querySelectorAll("g")[i]?.classList.toggle("off", !shown);
    });
  }

  /** Mark a point of the photo, [x, y] as shares of its sides; null takes the mark away. */
  pin(point) {
    this.#pin.hidden = point === null;
    if (point === null) return;
    this.#crosshair = point;
    this.#pin.style.left = `${point[0] * 100}%`;
    this.#pin.style.top = `${point[1] * 100}%`;
  }

  /**
   * Let the user point at the photo.
   * @param {(point: number[]|null) => void} done gets the point as shares of the photo's sides; null where none was named.
   */
  pick(done) {
    this.#picked = done;
    this.#element.classList.add("picking");
    this.pin(this.#crosshair);
    this.#view.focus({ preventScroll: true });
    this.#view.scrollIntoView({ block: "nearest" });
  }

  #endPick(point) {
    const done = this.#picked;
    this.#picked = null;
    this.#element.classList.remove("picking");
    done?.(point);
  }

  #showCut() {
    this.#element.style.setProperty("--cut", `${this.#cut.value}%`);
    this.#cut.setAttribute("aria-valuetext", `${this.#cut.value} % photo`);
  }

  #showNodes() {
    const wanted = this.#nodesButton.getAttribute("aria-pressed") === "true";
    const picture = this.#drawing.firstElementChild;
    const layers = wanted && picture !== null ? nodesOf(picture) : [];
    const count = layers.reduce((sum, { points }) => sum + points.length, 0);
    const tooMany = count > MOST_NODES;
    this.#nodes.hidden = layers.length === 0 || tooMany;
    this.#note.hidden = !tooMany;
    this.#note.textContent = tooMany
      ? `The drawing has ${count.toLocaleString("en")} nodes; at most ${MOST_NODES.toLocaleString("en")} are shown. `
        + "Less detail or a larger outline tolerance makes fewer."
      : "";
    this.#nodes.replaceChildren(...(this.#nodes.hidden ? [] : [dotsOver(picture, layers)]));
    const dots = this.#nodes.querySelectorAll("g");
    layers.forEach(({ layer }, i) => dots[i]?.classList.toggle("off", layer.classList.contains("off")));
  }

  #zoom(button) {
    const view = this.#view;
    const x = (view.scrollLeft + view.clientWidth / 2) / view.scrollWidth;
    const y = (view.scrollTop + view.clientHeight / 2) / view.scrollHeight;
    this.#element.style.setProperty("--zoom", button.dataset.zoom);
    view.scrollTo(x * view.scrollWidth - view.clientWidth / 2, y * view.scrollHeight - view.clientHeight / 2);
    for (const other of document.querySelectorAll("button[data-zoom]")) {
      other.setAttribute("aria-pressed", other === button);
    }
  }

  #shareAt({ clientX, clientY }) {
    const box = this.#element.getBoundingClientRect();
    const share = [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
    return share.map((value) => Math.min(Math.max(value, 0), 1));
  }

  #listenToDrags() {
    let held = null;
    this.#element.addEventListener("pointerdown", (event) => {
      // A finger drags at the divider alone; elsewhere it scrolls the page.
      const grabs = event.target.closest("#divider") !== null || event.pointerType === "mouse";
      if (this.#picked !== null || event.button !== 0 || !grabs) return;
      event.preventDefault();
      held = event.pointerId;
      this.#element.setPointerCapture(held);
      this.#drag(event);
    });
    this.#element.addEventListener("pointermove", (event) => {
      if (event.pointerId === held) this.#drag(event);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.#element.addEventListener(end, () => { held = null; });
    }
  }

  #drag(event) {
    this.#cut.value = this.#shareAt(event)[0] * 100;
    this.#showCut();
  }

  #listenToPicks() {
    this.#element.addEventListener("click", (event) => {
      if (this.#picked === null) return;
      this.pin(this.#shareAt(event));
      this.#endPick(this.#crosshair);
    });
    this.#view.addEventListener("keydown", (event) => {
      if (this.#picked === null) return;
      const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
      const move = moves[event.key];
      if (move !== undefined) {
        this.pin(this.#crosshair.map((value, i) => Math.min(Math.max(value + move[i], 0), 1)));
      } else if (event.key === "Enter") this.#endPick(this.#crosshair);
      else if (event.key === "Escape") this.#endPick(null);
      else return;
      event.preventDefault();
    });
  }
}
