// The palette: inks picked, pasted, read from a file, or taken from the photo.

const READY = {
  "Four inks": ["#111318", "#5B6770", "#E9ECEE", "#D7263D"],
  "Six greys": ["#0B0D10", "#33383F", "#616A73", "#959DA5", "#CACFD4", "#FFFFFF"],
  "Night drive": ["#0A0F1E", "#16243F", "#28456B", "#4F7CAC", "#9CC5E0", "#E8F1F5", "#F6AE2D", "#E4572E"],
  "Racing green": ["#0E1512", "#12372A", "#1F5F46", "#4F8A63", "#A9C3A0", "#F2EFE2", "#C49A3A", "#7A7F80"],
};
const HEX = /^#?([0-9a-f]{6})$/i;

/** @typedef {{hex: string, name: string}} Ink */

export class Palette {
  #part = document.querySelector("#palette");

  #swatches = document.querySelector("#swatches");

  #hex = document.querySelector("#ink-hex");

  #colour = document.querySelector("#ink-colour");

  #name = document.querySelector("#ink-name");

  #note = document.querySelector("#palette-note");

  #extract = document.querySelector("#extract");

  #keep = document.querySelector("#keep-inks");

  #chosen = 0;

  #drawn = null;

  /**
   * @param {{palette: Ink[], inks: {least: number, most: number}}} facts
   * @param {() => void} changed called after each change.
   * @param {(fault: Error) => void} refused called with what is wrong with a text or a file.
   */
  constructor(facts, changed, refused) {
    this.limits = facts.inks;
    this.changed = changed;
    this.refused = refused;
    this.#extract.max = Math.min(this.#extract.max, facts.inks.most);
    this.ready = { "Fifteen inks": facts.palette };
    for (const [name, hexes] of Object.entries(READY)) this.ready[name] = hexes.map((hex) => ({ hex, name: hex }));
    document.querySelector("#ready-palette")
      .replaceChildren(...Object.keys(this.ready).map((name) => new Option(name, name)), new Option("My own", ""));
    this.#show(facts.palette);
    this.#listen();
  }

  /** What the request's `palette` is. */
  value() {
    if (this.#source() === "photo") return { extract: Number(this.#extract.value) };
    return this.inks.map(({ hex, name }) => (name === "" || name === hex ? hex : { hex, name }));
  }

  /** The inks, where they are known before the job. @returns {Ink[]} */
  known() {
    return this.#source() === "photo" ? [] : this.inks;
  }

  /** The inks of the drawing that is shown, which the user may keep. @param {Ink[]} inks */
  drawnWith(inks) {
    this.#drawn = inks.map(({ hex, name }) => ({ hex, name }));
    this.#keep.disabled = false;
  }

  /** Show where an error lies: the ink that a field such as `palette[3].hex` names. */
  point(field) {
    const number = Number(field.match(/^palette\[(\d+)\]/)?.[1] ?? this.inks.length);
    if (this.#source() === "inks" && number < this.inks.length && number !== this.#chosen) this.#choose(number);
  }

  /** Read a palette file. @param {File} file */
  async readFile(file) {
    await this.#read(`/palette?name=${encodeURIComponent(file.name)}`, file, `from ${file.name}`);
  }

  #source() {
    return this.#part.querySelector("input[name=source]:checked").value;
  }

  #show(inks, note = "") {
    this.inks = inks.map(({ hex, name }) => ({ hex, name: name === hex ? "" : name }));
    this.#note.textContent = note;
    this.#draw();
    this.#choose(0);
  }

  #draw() {
    const buttons = this.inks.map((ink, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "swatch";
      button.style.backgroundColor = ink.hex;
      button.setAttribute("aria-label", ink.name === "" ? ink.hex : `${ink.name} ${ink.hex}`);
      button.addEventListener("click", () => this.#choose(i));
      return button;
    });
    if (this.inks.length < this.limits.most) {
      const add = document.createElement("button");
      add.type = "button";
      add.className = "swatch add";
      add.textContent = "+";
      add.setAttribute("aria-label", "Add an ink");
      add.addEventListener("click", () => this.#add());
      buttons.push(add);
    }
    this.#swatches.replaceChildren(...buttons);
  }

  #choose(i) {
    this.#chosen = i;
    const { hex, name } = this.inks[i];
    [this.#hex.value, this.#colour.value, this.#name.value] = [hex, hex.toLowerCase(), name];
    document.querySelector("#ink-remove").disabled = this.inks.length <= this.limits.least;
    [...this.#swatches.children].forEach((button, at) => {
      if (at < this.inks.length) button.setAttribute("aria-pressed", at === i);
    });
  }

  #edit(change) {
    Object.assign(this.inks[this.#chosen], change);
    this.#edited();
  }

  #edited() {
    document.querySelector("#ready-palette").value = "";
    this.#note.textContent = "";
    this.#draw();
    this.#choose(Math.min(this.#chosen, this.inks.length - 1));
    this.changed();
  }

  #add() {
    const taken = new Set(this.inks.map(({ hex }) => hex));
    let level = 0x80;
    const grey = () => `#${level.toString(16).toUpperCase().repeat(3)}`;
    while (taken.has(grey())) level += 1;
    this.inks.push({ hex: grey(), name: "" });
    this.#chosen = this.inks.length - 1;
    this.#edited();
    this.#hex.focus();
    this.#hex.select();
  }

  #remove() {
    this.inks.splice(this.#chosen, 1);
    this.#edited();
    this.#swatches.children[this.#chosen].focus();
  }

  #listen() {
    this.#part.addEventListener("change", ({ target }) => {
      if (target.name === "source") this.#showSource();
    });
    document.querySelector("#ready-palette").addEventListener("change", ({ target }) => {
      if (target.value !== "") this.#show(this.ready[target.value]);
      this.changed();
    });
    this.#colour.addEventListener("change", () => this.#edit({ hex: this.#colour.value.toUpperCase() }));
    this.#name.addEventListener("change", () => this.#edit({ name: this.#name.value.trim() }));
    this.#hex.addEventListener("change", () => this.#writeHex());
    document.querySelector("#ink-remove").addEventListener("click", () => this.#remove());
    document.querySelector("#use-text").addEventListener("click", () => this.#readText());
    document.querySelector("#palette-text").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#readText();
    });
    document.querySelector("#palette-file").addEventListener("change", ({ target }) => {
      if (target.files.length > 0) this.readFile(target.files[0]);
    });
    this.#extract.addEventListener("input", () => this.changed());
    this.#keep.addEventListener("click", () => this.#take(this.#drawn, "from the photo"));
  }

  #writeHex() {
    const digits = this.#hex.value.trim().match(HEX)?.[1];
    if (digits !== undefined) this.#edit({ hex: `#${digits.toUpperCase()}` });
    else this.#refuse(`“${this.#hex.value}” is not a hex colour; write #RRGGBB`, `palette[${this.#chosen}]`);
  }

  /** Say what is wrong with a palette; a place in a file is in the sentence already. */
  #refuse(sentence, field = null) {
    this.refused(Object.assign(new Error(sentence), { field: field?.startsWith("palette[") ? field : "palette" }));
  }

  #showSource() {
    const source = this.#source();
    for (const part of this.#part.querySelectorAll("[data-source]")) part.hidden = part.dataset.source !== source;
    this.#note.textContent = "";
    if (source === "inks" || source === "photo") this.changed();
  }

  #readText() {
    const text = document.querySelector("#palette-text").value;
    return this.#read("/palette", new Blob([text], { type: "text/plain" }), "from the text");
  }

  async #read(address, body, whence) {
    try {
      const answer = await fetch(address, { method: "POST", body });
      const read = await answer.json();
      if (answer.ok) this.#take(read, whence);
      else this.#refuse(read.error.replace(/^[A-Za-z]+: (palette\[\d+\]: |palette: )?/, ""), read.field);
    } catch {
      this.#refuse("The server doesn't answer. Is it still running?");
    }
  }

  #take(inks, whence) {
    this.#part.querySelector("input[name=source][value=inks]").checked = true;
    this.#showSource();
    document.querySelector("#ready-palette").value = "";
    this.#show(inks, `${inks.length} inks ${whence}.`);
    this.changed();
  }
}
