// The shape of each state, and the two ways to draw it. Colour repeats what the shape says.
//
// A layer is what has one style: a class of the style sheet. As SVG, a layer is one path; on a canvas, its style is read
// from an empty path of the same class. So both look alike, in all colour schemes.

const LAYERS = ["solid", "pale", "light", "mark", "dashed", "backing", "hatch", "frame", "over", "cross", "bar", "idle",
  "wedge", "weak", "usual"];
const LEGEND = [
  [["stored"], { kind: STORED, flags: 0 }, "stored"],
  [["empty"], { kind: STORED, flags: FLAG.empty }, "stored, no rows"],
  [["refreshed"], { kind: STORED, flags: FLAG.refreshed }, "exported again (refreshed)"],
  [["unsettled"], { kind: STORED, flags: FLAG.unsettled }, "stored, not settled yet"],
  [["kept"], { kind: STORED, flags: FLAG.kept }, "kept, parked with far fewer rows"],
  [["altered"], { kind: STORED, flags: FLAG.altered }, "deleted or changed on disk"],
  [["never asked", "behind"], { kind: "never asked", flags: 0 }, "missing"],
  [["parked"], { kind: "parked", flags: 0 }, "parked"],
  [["few"], { kind: STORED, flags: FLAG.few }, "stored, far fewer rows than usual"],
  [["in progress"], { kind: "in progress", flags: 0 }, "started"],
  [["accepted"], { kind: "accepted", flags: 0 }, "accepted by you"],
  [["not due"], { kind: "not due", flags: 0 }, "not due yet"],
];

class SvgPen {
  constructor() { this.parts = []; }
  moveTo(x, y) { this.parts.push(`M${round(x)} ${round(y)}`); }
  lineTo(x, y) { this.parts.push(`L${round(x)} ${round(y)}`); }
  closePath() { this.parts.push("Z"); }
}

const round = (number) => Math.round(number * 10) / 10;

function polygon(pen, points) {
  points.forEach(([x, y], at) => (at ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.closePath();
}

function lines(pen, ...ends) {
  for (const [x, y, toX, toY] of ends) {
    pen.moveTo(x, y);
    pen.lineTo(toX, toY);
  }
}

function rectangle(pen, { x, y, w, h }, notch = 0) {
  polygon(pen, [[x, y], [x + w - notch, y], ...(notch ? [[x + w, y + notch]] : [[x + w, y]]), [x + w, y + h], [x, y + h]]);
}

function hatch(pen, { x, y, w, h }, step) {
  for (let at = step / 2; at < w + h; at += step) {
    lines(pen, [x + Math.max(0, at - h), y + Math.min(at, h), x + Math.min(at, w), y + Math.max(0, at - w)]);
  }
}

function drawStored(pens, box, flags) {
  const small = Math.min(box.w, box.h);
  if (flags & (FLAG.few | FLAG.accepted)) drawMarked(pens, box, flags);
  else drawBody(pens, box, flags, small);
  if (flags & FLAG.empty) {
    const r = Math.min(small / 4, 2.5);
    const [x, y] = [box.x + box.w / 2, box.y + box.h / 2];
    polygon(pens("mark"), [[x - r, y], [x, y - r], [x + r, y], [x, y + r]]);
  }
  if (flags & FLAG.kept) drawCross(pens("over"), box);
  if (flags & FLAG.altered) {
    polygon(pens("wedge"), [[box.x, box.y + box.h], [box.x + box.w / 2, box.y], [box.x + box.w, box.y + box.h]]);
  }
}

function drawBody(pens, box, flags, small) {
  const notch = flags & FLAG.refreshed ? small * 0.5 : 0;
  if (flags & FLAG.unsettled) {
    rectangle(pens("pale"), box, notch);
    rectangle(pens("dashed"), box, notch);
  } else rectangle(pens(flags & FLAG.empty ? "light" : "solid"), box, notch);
}

// Stored time with few rows: as missing time if it is open, as an accepted gap if that is accepted, and filled.
function drawMarked(pens, box, flags) {
  rectangle(pens("pale"), box);
  drawCell(pens, box, { kind: flags & FLAG.few ? "few" : "accepted", flags: 0 });
}

function drawCross(pen, { x, y, w, h }) {
  lines(pen, [x + 1, y + 1, x + w - 1, y + h - 1], [x + 1, y + h - 1, x + w - 1, y + 1]);
}

function drawCell(pens, box, { kind, flags }) {
  const middle = box.y + box.h / 2;
  switch (kind) {
    case STORED: drawStored(pens, box, flags); break;
    case "parked": drawCross(pens("cross"), box); break;
    case "accepted":
      rectangle(pens("bar"), box);
      lines(pens("bar"), [box.x, middle, box.x + box.w, middle]);
      break;
    case "in progress":
      rectangle(pens("idle"), box);
      rectangle(pens("mark"), { ...box, y: middle, h: box.h / 2 });
      break;
    case "not due": lines(pens("idle"), [box.x, box.y + box.h, box.x + box.w, box.y + box.h]); break;
    default:
      rectangle(pens("frame"), box);
      hatch(pens("hatch"), box, Math.max(3, Math.min(5, box.w)));
  }
}

// A drawing of some size within an element: texts and paths as SVG; the paths on a canvas if there are many.
class Scene {
  constructor(width, height, onCanvas) {
    this.svg = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    this.elements = [this.svg];
    this.pens = new Map();
    this.context = onCanvas ? this.newContext(width, height) : null;
  }

  newContext(width, height) {
    const scale = window.devicePixelRatio || 1;
    const canvas = make("canvas", { width: Math.ceil(width * scale), height: Math.ceil(height * scale), "aria-hidden": "true" });
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    this.elements.unshift(canvas);
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    return context;
  }

  text(x, y, text, { anchor = "start", strong = false } = {}) {
    this.svg.append(draw("text", { x, y, "text-anchor": anchor, class: strong ? "strong" : "" }, text));
  }

  pen(name) {
    if (!this.pens.has(name)) this.pens.set(name, this.context ? new Path2D() : new SvgPen());
    return this.pens.get(name);
  }

  // Show what was drawn so far; as SVG only at the end.
  flush(isLast) {
    if (!this.context && !isLast) return;
    for (const name of LAYERS.filter((layer) => this.pens.has(layer))) {
      const path = this.path(name);
      if (this.context) this.paint(this.pens.get(name), getComputedStyle(path));
      else path.setAttribute("d", this.pens.get(name).parts.join(""));
    }
    this.pens.clear();
  }

  path(name) {
    const found = this.svg.querySelector(`path[data-layer="${name}"]`);
    if (found) return found;
    const path = draw("path", { class: name, "data-layer": name });
    this.svg.append(path);
    return path;
  }

  paint(path, style) {
    if (style.fill !== "none") {
      this.context.fillStyle = style.fill;
      this.context.fill(path);
    }
    if (style.stroke !== "none") {
      this.context.strokeStyle = style.stroke;
      this.context.lineWidth = parseFloat(style.strokeWidth);
      this.context.setLineDash(style.strokeDasharray === "none" ? [] : style.strokeDasharray.split(",").map(parseFloat));
      this.context.stroke(path);
    }
  }
}

function legend(used) {
  return legendOf(LEGEND.filter(([names]) => names.some((name) => used.has(name))).map(([, cell, text]) => [cell, text]));
}

function legendOf(entries) {
  const items = entries.map(([cell, text]) => {
    const scene = new Scene(16, 12, false);
    drawCell((name) => scene.pen(name), { x: 1, y: 1, w: 14, h: 10 }, cell);
    scene.flush(true);
    return make("li", {}, scene.svg, text);
  });
  return make("ul", { class: "legend", "aria-label": "Legend" }, ...items);
}
