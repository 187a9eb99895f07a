// The pictures of one export: days by time of day, and a strip of all days if there are many.

const DAYS_SHOWN = 60;
const ROW_HEIGHT = 16;
const CELL_HEIGHT = 12;
const HEAD_HEIGHT = 20;
const WIDE = 640;
const LETTER_WIDTH = 8;
const KIND_WORDS = {
  "never asked": "missing, no run has asked for it",
  behind: "missing, settled and not exported yet",
  parked: "parked",
  "in progress": "started",
  accepted: "accepted as missing",
  "not due": "not due yet",
};

function cellWords(cell, data) {
  if (cell.kind !== STORED) return `${KIND_WORDS[cell.kind] ?? cell.kind}${cell.text ? `: ${cell.text}` : ""}`;
  const has = (flag) => cell.flags & flag;
  return [
    has(FLAG.empty) ? "stored, no rows" : `stored, ${counted(cell.rows, "row")}`,
    has(FLAG.refreshed) && (has(FLAG.changed) ? "exported again and replaced" : "exported again with the same rows"),
    has(FLAG.unsettled) && "exported before its data was settled",
    has(FLAG.kept) && "kept, because a new export has far fewer rows",
    has(FLAG.altered) && "the archive was deleted or changed on disk",
    has(FLAG.few) && `few rows: ${data.markWords(FLAG.few, cell)}`,
    has(FLAG.accepted) && `accepted: ${data.markWords(FLAG.accepted, cell)}`,
  ].filter(Boolean).join(", ");
}

class ExportView {
  constructor(data) {
    this.data = data;
    this.last = data.lastDay;
    this.selected = data.lastDay;
    this.grid = new Picture({
      name: `Days by time of day of ${data.name}`,
      help: "A row per day, a cell per bundle. Arrow keys move the cursor; Page Up and Page Down move it by a week.",
      layout: (width) => this.layoutGrid(width),
      describe: (item) => this.describeCell(item),
      move: (key, item) => this.moveCell(key, item),
      choose: (item) => this.select(Math.floor(item.start / DAY)),
    });
    this.bundles = new LazyTable("", ["From", "To", "State"], () => this.bundleRows());
    this.dayTable = new LazyTable("Table of days", ["Day", "Rows", "Usual", "Archives", "Missing", "What"],
      () => this.dayRows(), [1, 2, 3]);
    this.position = make("span", { class: "quiet" });
    this.strip = data.days.length > DAYS_SHOWN ? this.newStrip() : null;
    [this.shownLast, this.shownGaps] = [data.lastDay, data.gaps.length];
    this.element = make("div", {}, ...this.parts());
  }

  parts() {
    this.legend = legend(this.data.used);
    this.controls = this.buttons();
    const found = [make("h3", {}, "Days by time of day"), this.legend];
    if (this.strip) found.push(this.strip.element);
    return [...found, this.controls, this.grid.element, this.bundles.element, this.dayTable.element];
  }

  buttons() {
    const made = [];
    if (this.strip) {
      made.push(button("Earlier days", () => this.shift(-DAYS_SHOWN)), button("Later days", () => this.shift(DAYS_SHOWN)));
    }
    if (this.data.gaps.length) {
      made.push(button("Previous gap", () => this.stepGap(-1)), button("Next gap", () => this.stepGap(1)));
    }
    return make("div", { class: "buttons" }, ...made, this.position);
  }

  async render() {
    await this.strip?.render();
    await pause();
    await this.showWindow(this.last);
  }

  // Show what has changed in the data, or other data; the cursor stays where it is.
  async update(data = this.data) {
    const wasLast = this.last >= this.shownLast;
    const hadGaps = this.shownGaps > 0;
    this.data = data;
    if (!data.days.length) return;
    const fresh = legend(data.used);
    this.legend.replaceWith(fresh);
    this.legend = fresh;
    const needsStrip = !this.strip && data.days.length > DAYS_SHOWN;
    if (needsStrip) {
      this.strip = this.newStrip();
      this.controls.before(this.strip.element);
    }
    if (needsStrip || hadGaps !== data.gaps.length > 0) {
      const controls = this.buttons();
      this.controls.replaceWith(controls);
      this.controls = controls;
    }
    await this.strip?.render(true);
    if (this.dayTable.element.open) this.dayTable.refresh();
    this.bundles.refresh();
    await this.showWindow(wasLast ? data.lastDay : this.last, true);
  }

  get first() {
    return Math.max(this.last - DAYS_SHOWN + 1, this.data.firstDay);
  }

  // Show the days up to this one.
  async showWindow(last, isUpdate = false) {
    this.last = Math.min(Math.max(last, this.data.firstDay + DAYS_SHOWN - 1), this.data.lastDay);
    const number = this.data.gaps.length;
    const gaps = number ? `, ${counted(number, "gap")} in all` : "";
    this.position.textContent = `${dayOf(this.first * DAY)} to ${dayOf(this.last * DAY)}${gaps}`;
    this.select(Math.min(Math.max(this.selected, this.first), this.last));
    [this.shownLast, this.shownGaps] = [this.data.lastDay, number];
    await this.grid.render(isUpdate);
  }

  // Make sure that a day is among those shown.
  async reveal(day) {
    if (day < this.first || day > this.last) await this.showWindow(day + Math.floor(DAYS_SHOWN / 2));
  }

  async shift(days) {
    this.grid.current = null;
    await this.showWindow(this.last + days);
  }

  select(day) {
    if (day === this.selected && this.bundles.summary.textContent) return;
    this.selected = day;
    this.bundles.rename(`Table of the bundles of ${dayOf(day * DAY)}`);
    this.bundles.refresh();
  }

  async layoutGrid(width) {
    const wide = width >= WIDE;
    const left = wide ? 112 : 64;
    const right = wide ? 210 : 66;
    const scale = (width - left - right) / DAY;
    const [first, last] = [this.first, this.last];
    const items = [];
    const slices = new Slices();
    for (let day = first; day <= last; day += 1) {
      const y = HEAD_HEIGHT + (last - day) * ROW_HEIGHT;
      for (const item of this.data.cells(day * DAY, (day + 1) * DAY)) {
        const span = (item.end - item.start) * scale;
        item.x = left + (item.start - day * DAY) * scale;
        item.w = Math.max(span - (span > 6 ? 1.5 : span > 2 ? 0.5 : 0), 0.8);
        item.y = y;
        item.h = CELL_HEIGHT;
        items.push(item);
      }
      await slices.next();
    }
    return {
      height: HEAD_HEIGHT + (last - first + 1) * ROW_HEIGHT,
      items,
      frame: (scene) => this.frameGrid(scene, { wide, left, scale, width }),
      drawItem: (pens, item) => drawCell(pens, item, item),
    };
  }

  frameGrid(scene, { wide, left, scale, width }) {
    for (const hour of [0, 6, 12, 18]) scene.text(left + hour * HOUR * scale, 13, `${String(hour).padStart(2, "0")}:00`);
    const [rowsAt, usualAt, barAt] = wide ? [width - 130, width - 62, width - 54] : [width, 0, 0];
    scene.text(rowsAt, 13, "rows", { anchor: "end" });
    if (wide) scene.text(usualAt, 13, "usual", { anchor: "end" });
    const most = Math.max(1, ...this.data.days.map((day) => day.rows), ...this.data.usual);
    for (let number = this.first; number <= this.last; number += 1) {
      const day = this.data.days[number - this.data.firstDay];
      const usual = this.data.usual[weekdayOf(number)];
      const y = HEAD_HEIGHT + (this.last - number) * ROW_HEIGHT;
      const date = dayOf(number * DAY);
      const name = WEEKDAYS[weekdayOf(number)];
      scene.text(0, y + 10, wide ? `${date} ${name}` : `${date.slice(5)} ${name.slice(0, 2)}`, { strong: true });
      scene.text(rowsAt, y + 10, count(day.rows), { anchor: "end", strong: true });
      if (!wide) continue;
      scene.text(usualAt, y + 10, usual === null ? "–" : count(usual), { anchor: "end" });
      rectangle(scene.pen("weak"), { x: barAt, y: y + 2, w: (day.rows / most) * 50, h: CELL_HEIGHT - 4 });
      const tick = barAt + ((usual ?? 0) / most) * 50;
      if (usual !== null) lines(scene.pen("usual"), [tick, y, tick, y + CELL_HEIGHT]);
    }
  }

  describeCell(item) {
    const day = Math.floor(item.start / DAY);
    const end = item.end % DAY ? timeOf(item.end) : "24:00";
    const gap = this.data.arrived.has(item.start) ? -1 : this.data.gapAt(item.start);
    const command = gap < 0 ? "" : this.data.command(this.data.gaps[gap]);
    const fills = command ? `. Command: ${command}` : "";
    const where = gap < 0 ? "" : ` (gap ${count(gap + 1)} of ${count(this.data.gaps.length)})`;
    const when = `${dayOf(item.start)} ${WEEKDAYS[weekdayOf(day)]}, ${timeOf(item.start)} to ${end}`;
    return `${when}: ${cellWords(item, this.data)}${where}${fills}`;
  }

  moveCell(key, item) {
    const items = this.grid.items;
    const at = items.indexOf(item);
    const days = { ArrowUp: 1, ArrowDown: -1, PageUp: 7, PageDown: -7 }[key];
    if (days) return this.cellAt(item.start + days * DAY);
    const day = Math.floor(item.start / DAY);
    if (key === "Home") return items.find((one) => one.start >= day * DAY);
    if (key === "End") return items.findLast((one) => one.start < (day + 1) * DAY);
    return stepOf(key, at, items) ?? null;
  }

  // The cell that has a time or is next to it; the days shown are shifted if need be.
  async cellAt(at) {
    const day = Math.floor(at / DAY);
    if (day < this.data.firstDay || day > this.data.lastDay) return null;
    if (day < this.first || day > this.last) {
      await this.showWindow(day > this.last ? day : day + DAYS_SHOWN - 1);
    }
    return this.grid.items.find((one) => one.end > at) ?? this.grid.items.at(-1) ?? null;
  }

  stepGap(step) {
    const at = this.grid.current ? this.grid.current.start : step > 0 ? -Infinity : Infinity;
    const gaps = this.data.gaps;
    const here = this.data.gapAt(at);
    let next = here >= 0 ? here + step : firstAbove(this.data.gapStarts, at) - (step > 0 ? 0 : 1);
    next = (next + gaps.length) % gaps.length;
    this.showGap(next, false);
  }

  async showGap(number, focus) {
    const gap = this.data.gaps[number];
    const day = Math.floor(gap.start / DAY);
    this.strip?.visitDay(day, false);
    await this.reveal(day);
    const item = this.grid.items.find((one) => one.end > gap.start && one.kind !== STORED) ?? await this.cellAt(gap.start);
    if (!item) return;
    this.grid.box.classList.add("pinned");
    this.grid.visit(item);
    if (focus) this.grid.box.focus();
  }

  newStrip() {
    const strip = new Picture({
      name: `All days of ${this.data.name}`,
      help: "A square per day, a column per week. Arrow keys move; the picture below follows.",
      layout: (width) => this.layoutStrip(width),
      describe: (item) => this.describeDay(item.number),
      move: (key, item, items) => {
        const steps = { ArrowLeft: -7, ArrowRight: 7, ArrowUp: -1, ArrowDown: 1 };
        const at = items.indexOf(item);
        return key in steps ? items[Math.min(Math.max(at + steps[key], 0), items.length - 1)] : stepOf(key, at, items);
      },
      choose: (item) => this.showDay(item.number),
    });
    strip.visitDay = (number) => {
      strip.current = strip.items.find((item) => item.number === number) ?? null;
      strip.place();
      if (strip.current) strip.say(strip.current);
    };
    return strip;
  }

  showDay(number) {
    this.reveal(number);
    this.select(number);
  }

  layoutStrip(width) {
    const size = 12;
    const left = 34;
    const monday = this.data.firstDay - weekdayOf(this.data.firstDay);
    const columns = Math.max(1, Math.floor((width - left) / size));
    const blockHeight = HEAD_HEIGHT + 7 * size + 8;
    const items = this.data.days.map((day, at) => {
      const number = this.data.firstDay + at;
      const week = Math.floor((number - monday) / 7);
      const y = Math.floor(week / columns) * blockHeight + HEAD_HEIGHT + weekdayOf(number) * size;
      const cell = dayCell(day);
      return { ...cell, number, key: number, x: left + (week % columns) * size, y, w: size - 2, h: size - 2 };
    });
    const blocks = items.length ? Math.floor((items.at(-1).y - 1) / blockHeight) + 1 : 0;
    return {
      height: blocks * blockHeight,
      items,
      frame: (scene) => frameStrip(scene, items, { blocks, blockHeight, size }),
      drawItem: (pens, item) => drawCell(pens, item, item),
    };
  }

  describeDay(number) {
    const day = this.data.days[number - this.data.firstDay];
    const usual = this.data.usual[weekdayOf(number)];
    const usually = usual === null ? "" : ` (this weekday usually has ${count(usual)})`;
    return `${dayOf(number * DAY)} ${WEEKDAYS[weekdayOf(number)]}: ${counted(day.rows, "row")}${usually}; ${dayWords(day)}`;
  }

  bundleRows() {
    const cells = this.data.cells(this.selected * DAY, (this.selected + 1) * DAY);
    return cells.map((cell) => [timeOf(cell.start), cell.end % DAY ? timeOf(cell.end) : "24:00", cellWords(cell, this.data)]);
  }

  dayRows() {
    return this.data.days.map((day, at) => {
      const number = this.data.firstDay + at;
      const usual = this.data.usual[weekdayOf(number)];
      return [`${dayOf(number * DAY)} ${WEEKDAYS[weekdayOf(number)]}`, count(day.rows), usual === null ? "–" : count(usual),
        count(day.archives), day.missing ? duration(day.missing) : "nothing", dayWords(day)];
    }).reverse();
  }
}

// The worst of a day, as one cell.
function dayCell({ kinds, rows, archives }) {
  const has = (name) => kinds.has(name);
  if (has("altered")) return { kind: STORED, flags: FLAG.altered };
  for (const kind of ["parked", "never asked", "behind", "in progress"]) if (has(kind)) return { kind, flags: 0 };
  if (has("few")) return { kind: STORED, flags: FLAG.few };
  if (has("accepted")) return archives ? { kind: STORED, flags: FLAG.accepted } : { kind: "accepted", flags: 0 };
  if (!archives) return { kind: "not due", flags: 0 };
  if (has("kept")) return { kind: STORED, flags: FLAG.kept };
  if (has("unsettled")) return { kind: STORED, flags: FLAG.unsettled };
  return { kind: STORED, flags: rows ? 0 : FLAG.empty };
}

function dayWords({ kinds, missing }) {
  const words = { altered: "archives altered", parked: "bundles parked", "in progress": "bundles started",
    few: "few rows", accepted: "gaps accepted", kept: "archives kept", unsettled: "not settled yet", refreshed: "exported again",
    "not due": "not all due yet" };
  const found = Object.keys(words).filter((name) => kinds.has(name)).map((name) => words[name]);
  if (missing) found.unshift(`${duration(missing)} missing`);
  return found.join(", ") || (kinds.has(STORED) ? "stored" : "nothing asked for");
}

function frameStrip(scene, items, { blocks, blockHeight, size }) {
  for (let block = 0; block < blocks; block += 1) {
    for (const weekday of [0, 2, 4]) {
      scene.text(0, block * blockHeight + HEAD_HEIGHT + weekday * size + 10, WEEKDAYS[weekday]);
    }
  }
  let free = { x: -100, y: -1 };
  for (const item of items) {
    const date = dayOf(item.number * DAY);
    const y = item.y - weekdayOf(item.number) * size - 6;
    const isNew = date.endsWith("-01") || item === items[0];
    if (!isNew || (y === free.y && item.x < free.x)) continue;
    const month = MONTHS[Number(date.slice(5, 7)) - 1];
    const name = month === "Jan" || item === items[0] ? `${month} ${date.slice(0, 4)}` : month;
    scene.text(item.x, y, name);
    free = { x: item.x + name.length * LETTER_WIDTH, y };
  }
}
