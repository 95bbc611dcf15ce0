// The drawing as the page shows it: rebuilt from the reply's text, element by element, so that nothing in it can run.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = ["path", "circle", "ellipse"];
const ATTRIBUTES = {
  svg: ["viewBox"],
  g: ["data-ink", "fill", "fill-rule"],
  path: ["d", "fill", "fill-rule"],
  circle: ["cx", "cy", "r", "fill"],
  ellipse: ["cx", "cy", "rx", "ry", "transform", "fill"],
};
const NUMBERS_OF = { m: 2, l: 2, h: 1, v: 1, c: 6, s: 4, q: 4, t: 2, a: 7, z: 0 };

/**
 * The SVG text as a new element that holds outlines and their inks alone.
 * @returns {SVGSVGElement}
 * @throws {Error} the text is no SVG.
 */
export function pictureOf(text) {
  const root = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  if (root.namespaceURI !== SVG || root.localName !== "svg") throw new Error("The reply's SVG can't be read.");
  const picture = rebuilt(root);
  // The stage has the photo's own aspect; the frame's differs from it by less than a pixel.
  picture.setAttribute("preserveAspectRatio", "none");
  return picture;
}

function rebuilt(source) {
  const copy = document.createElementNS(SVG, source.localName);
  for (const name of ATTRIBUTES[source.localName]) {
    const value = source.getAttribute(name);
    if (value !== null && (name !== "fill" || /^#[0-9A-F]{6}$/.test(value))) copy.setAttribute(name, value);
  }
  for (const child of source.children) {
    const known = child.namespaceURI === SVG && (child.localName === "g" || DRAWN.includes(child.localName));
    if (known) copy.append(rebuilt(child));
  }
  return copy;
}

/**
 * Where the outlines of a picture have their nodes.
 * @returns {{layer: SVGGElement, points: number[][]}[]} for each layer, [x, y] in the picture's units.
 */
export function nodesOf(picture) {
  return [...picture.querySelectorAll("g")].map((layer) => ({
    layer,
    points: [...layer.querySelectorAll(DRAWN.join())].flatMap(nodesOfElement),
  }));
}

function nodesOfElement(element) {
  if (element.localName === "path") return nodesOfPath(element.getAttribute("d"));
  const [x, y, across] = ["cx", "cy", element.localName === "circle" ? "r" : "rx"]
    .map((name) => Number(element.getAttribute(name)));
  const turn = (Number((element.getAttribute("transform") ?? "").match(/\(([-.\d]+)/)?.[1] ?? 0) * Math.PI) / 180;
  const dx = across * Math.cos(turn);
  const dy = across * Math.sin(turn);
  return [[x - dx, y - dy], [x + dx, y + dy]];
}

/** The end of each command but Z, absolute. @returns {number[][]} */
export function nodesOfPath(data) {
  const points = [];
  let at = [0, 0];
  let start = at;
  for (const [letter, numbers] of commandsOf(data)) {
    const kind = letter.toLowerCase();
    if (kind === "z") {
      at = start;
      continue;
    }
    const [ox, oy] = letter === kind ? at : [0, 0];
    if (kind === "h") at = [ox + numbers[0], at[1]];
    else if (kind === "v") at = [at[0], oy + numbers[0]];
    else at = [ox + numbers.at(-2), oy + numbers.at(-1)];
    if (kind === "m") start = at;
    points.push(at);
  }
  return points;
}

/** Each command with its own numbers; a repeated M goes on as L. */
function* commandsOf(data) {
  const letters = /\s*([a-z])/iy;
  const number = /[\s,]*([+-]?(?:\d+\.?\d*|\.\d+))/y;
  const flag = /[\s,]*([01])/y;
  let place = 0;
  const take = (pattern) => {
    pattern.lastIndex = place;
    const found = pattern.exec(data);
    if (found !== null) place = pattern.lastIndex;
    return found?.[1];
  };
  for (let letter = take(letters); letter !== undefined; letter = take(letters)) {
    const count = NUMBERS_OF[letter.toLowerCase()];
    if (count === 0) yield [letter, []];
    for (let first = count > 0 ? take(number) : undefined; first !== undefined; first = take(number)) {
      const numbers = [Number(first)];
      while (numbers.length < count) {
        const isFlag = count === 7 && (numbers.length === 3 || numbers.length === 4);
        numbers.push(Number(take(isFlag ? flag : number)));
      }
      yield [letter, numbers];
      if (letter === "m") letter = "l";
      if (letter === "M") letter = "L";
    }
  }
}

/** Dots at the nodes, in a picture of its own that lies over the first. @returns {SVGSVGElement} */
export function dotsOver(picture, layers) {
  const over = document.createElementNS(SVG, "svg");
  for (const name of ["viewBox", "preserveAspectRatio"]) over.setAttribute(name, picture.getAttribute(name));
  for (const { points } of layers) {
    const group = document.createElementNS(SVG, "g");
    // A line of no length with round caps is a dot, and all dots of a layer are one element.
    const data = points.map(([x, y]) => `M${x.toFixed(2)} ${y.toFixed(2)}h0`).join("");
    for (const part of ["halo", "dot"]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", part);
      path.setAttribute("d", data);
      path.setAttribute("vector-effect", "non-scaling-stroke");
      group.append(path);
    }
    over.append(group);
  }
  return over;
}
