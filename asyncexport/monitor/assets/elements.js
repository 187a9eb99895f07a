// Makes elements. Text is only ever set as text, and nothing sets a style attribute or an inline handler.

const SVG = "http://www.w3.org/2000/svg";
const ROWS_AT_ONCE = 100;
const SLICE_MS = 12;

function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function button(text, action) {
  const made = make("button", { type: "button" }, text);
  made.addEventListener("click", action);
  return made;
}

// Let the browser answer before more work is done.
const pause = () => new Promise((resolve) => { setTimeout(resolve); });

// Work in slices: `await slices.next()` lets the browser answer if the present slice has taken long.
class Slices {
  constructor() {
    this.began = performance.now();
  }

  async next() {
    if (performance.now() - this.began < SLICE_MS) return;
    await pause();
    this.began = performance.now();
  }
}

// A table that is built when it is opened, in slices. `rows()` returns arrays of texts and elements.
class LazyTable {
  constructor(summary, heads, rows, numbers = []) {
    this.heads = heads;
    this.rows = rows;
    this.numbers = new Set(numbers);
    this.summary = make("summary", {}, summary);
    this.place = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": summary });
    this.element = make("details", {}, this.summary, this.place);
    this.element.addEventListener("toggle", () => this.refresh());
    this.turn = 0;
  }

  rename(summary) {
    this.summary.textContent = summary;
    this.place.setAttribute("aria-label", summary);
  }

  async refresh() {
    this.turn += 1;
    const turn = this.turn;
    if (!this.element.open) return;
    const body = make("tbody");
    const head = this.heads.map((text, at) => this.cell("th", text, at, { scope: "col" }));
    this.place.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...head)), body));
    const rows = this.rows();
    for (let at = 0; at < rows.length; at += ROWS_AT_ONCE) {
      if (turn !== this.turn) return;
      const slice = rows.slice(at, at + ROWS_AT_ONCE);
      body.append(...slice.map((row) => make("tr", {}, ...row.map((text, column) => this.cell("td", text, column)))));
      await pause();
    }
  }

  cell(tag, content, column, attributes = {}) {
    return make(tag, { ...attributes, ...(this.numbers.has(column) ? { class: "number" } : {}) }, content);
  }
}

// Add a button that copies a command.
function addCopy(code) {
  const copy = button("Copy", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  });
  copy.setAttribute("aria-label", `Copy ${code.textContent}`);
  code.after(" ", copy);
}
