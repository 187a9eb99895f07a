// A picture of items that keyboard and pointer can visit one by one. The line below it describes the current one.
//
// The whole picture is one stop of the Tab key, with a cursor that the arrow keys move: thousands of stops would help
// nobody. `layout(width)` returns the height, the items with their boxes, and what draws them, or a promise of it.

const MOST_SVG_ITEMS = 5000;
const ITEMS_AT_ONCE = 250;
const KEYS = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"]);
const pictures = [];

class Picture {
  constructor({ name, help, layout, describe, move, choose }) {
    this.layout = layout;
    this.describe = describe;
    this.move = move ?? ((key, item, items) => stepOf(key, items.indexOf(item), items));
    this.choose = choose ?? (() => {});
    this.items = [];
    this.current = null;
    this.turn = 0;
    this.cursor = make("div", { class: "cursor" });
    this.drawing = make("div", {});
    this.box = make("div", { class: "picture", tabindex: "0", role: "application", "aria-roledescription": "picture",
      "aria-label": `${name}. ${help}` }, this.drawing, this.cursor);
    this.readout = make("output", { class: "readout", "aria-live": "polite" }, help);
    this.element = make("div", {}, this.box, this.readout);
    this.box.addEventListener("keydown", (event) => this.onKey(event));
    this.box.addEventListener("pointermove", (event) => this.onPointer(event, false));
    this.box.addEventListener("click", (event) => this.onPointer(event, true));
    this.box.addEventListener("focus", () => { if (!this.current && this.items.length) this.visit(this.items.at(-1)); });
    new ResizeObserver(() => { if (this.width !== this.box.clientWidth && this.isDrawn) this.render(); }).observe(this.box);
    pictures.push(this);
  }

  // Draw everything. With `isUpdate`, the old drawing remains visible until the new one is complete.
  async render(isUpdate = false) {
    this.turn += 1;
    const turn = this.turn;
    this.width = this.box.clientWidth;
    this.isDrawn = true;
    if (!this.width) return;
    const { height, items, frame, drawItem } = await this.layout(this.width);
    if (turn !== this.turn) return;
    const scene = new Scene(this.width, height, items.length > MOST_SVG_ITEMS);
    this.items = items;
    this.box.style.height = `${height}px`;
    const old = isUpdate ? [...this.drawing.children] : [];
    if (isUpdate) this.drawing.append(...scene.elements);
    else this.drawing.replaceChildren(...scene.elements);
    frame?.(scene);
    this.place();
    const slices = new Slices();
    const pens = (name) => scene.pen(name);
    for (let at = 0; at < items.length; at += 1) {
      drawItem(pens, items[at]);
      if (at % ITEMS_AT_ONCE < ITEMS_AT_ONCE - 1) continue;
      scene.flush(false);
      await slices.next();
      if (turn !== this.turn) return;
    }
    scene.flush(true);
    old.forEach((element) => element.remove());
    if (isUpdate && this.current) this.say(this.current);
  }

  // Move the cursor to an item and describe it.
  visit(item) {
    this.current = item;
    this.place();
    this.say(item);
    this.choose(item);
  }

  say(item) {
    const words = this.describe(item);
    if (this.readout.textContent !== words) this.readout.textContent = words;
  }

  place() {
    if (this.current && !this.items.includes(this.current)) {
      this.current = this.items.find((item) => item.key === this.current.key) ?? null;
    }
    this.cursor.hidden = !this.current;
    if (!this.current) return;
    const { x, y, w, h } = this.current;
    Object.assign(this.cursor.style, { left: `${x - 4}px`, top: `${y - 4}px`, width: `${w + 8}px`, height: `${h + 8}px` });
  }

  async onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !this.items.length || !KEYS.has(event.key)) return;
    event.preventDefault();
    const next = await this.move(event.key, this.current ?? this.items.at(-1), this.items);
    if (next) this.visit(next);
  }

  onPointer(event, chosen) {
    const { left, top } = this.box.getBoundingClientRect();
    const [x, y] = [event.clientX - left, event.clientY - top];
    const found = this.items.findLast((item) =>
      x >= item.x - 1 && x <= item.x + item.w + 1 && y >= item.y - 2 && y <= item.y + item.h + 2);
    if (!found) return;
    if (chosen) {
      this.box.classList.add("pinned");
      this.visit(found);
    } else this.say(found);
  }
}

// The item that a key leads to in a row of items.
function stepOf(key, at, items) {
  const steps = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: items.length - 1 };
  if (!(key in steps)) return null;
  return items[Math.min(Math.max(steps[key], 0), items.length - 1)];
}

for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
  matchMedia(query).addEventListener("change", () => pictures.forEach((picture) => picture.render()));
}
