// Times, numbers, and the data of an export. page_data.py describes the form of the data.

const HOUR = 3600;
const DAY = 24 * HOUR;
const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const FLAG = { empty: 1, refreshed: 2, unsettled: 4, kept: 8, altered: 16, changed: 32, accepted: 64, few: 128 };
const STORED = "stored";
// Spans of these kinds are cut at the grid lines; the others are bundles as they are.
const CUT = new Set(["never asked", "behind", "not due", "accepted"]);
const SHORTEST_CELL = 60;
const MOST_DAYS = 3653;

const iso = (at) => `${new Date(at * 1000).toISOString().slice(0, 19)}Z`;
const dayOf = (at) => iso(at).slice(0, 10);
const timeOf = (at) => (at % 60 ? iso(at).slice(11, 19) : iso(at).slice(11, 16));
const minuteOf = (at) => `${iso(at).slice(0, 16).replace("T", " ")} UTC`;
const weekdayOf = (day) => (((day + 3) % 7) + 7) % 7;
const count = (number) => number.toLocaleString("en-US");
const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${hours / 24} d`;
}

// The first index whose value is above a limit.
function firstAbove(values, limit) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] > limit) high = middle;
    else low = middle + 1;
  }
  return low;
}

class ExportData {
  constructor(raw, kinds) {
    this.name = raw.name;
    this.width = Math.max(raw.width, SHORTEST_CELL);
    this.rows = raw.rows;
    this.flags = Uint8Array.from(raw.flags, (letter) => letter.charCodeAt(0) - 48);
    this.starts = new Float64Array(raw.rows.length);
    this.ends = new Float64Array(raw.rows.length);
    this.readRuns(raw.runs);
    this.spans = ranges(raw.spans, (kind, text) => ({ kind: kinds[kind], text: raw.texts[text] }));
    this.gaps = ranges(raw.gaps, (kind, command) => ({ kind: kinds[kind], command: raw.commands[command] }));
    this.marks = raw.marks.map(([start, end, kind, text]) => ({ start, end, flag: FLAG[kind], text: raw.texts[text] }));
    this.marks.forEach((mark) => this.setMark(mark));
    this.spanStarts = this.spans.map((span) => span.start);
    this.gapStarts = this.gaps.map((gap) => gap.start);
    this.configured = raw.configured;
    this.since = raw.since;
    this.noCommand = raw.no_command;
    this.firstDay = raw.first_day;
    this.days = raw.days.map(([rows, archives, stored, missing]) => ({ rows, archives, stored, missing }));
    this.usual = raw.usual;
    this.arrived = new Set();
    this.findKinds();
  }

  // Take over what has become of bundles since the data was made. live_changes.py describes a change.
  apply(changes) {
    for (const [start, end, kind, rows, flags, text] of changes) {
      const at = firstAbove(this.starts, start) - 1;
      const hasArchive = at >= 0 && this.starts[at] === start && this.ends[at] === end;
      this.addDays(start, end);
      if (kind === STORED) this.store(hasArchive ? at : -1, { start, end, rows, flags });
      else if (hasArchive && kind === "kept") this.flags[at] |= FLAG.kept;
      if (hasArchive) continue;
      this.cutSpans(start, end);
      if (kind !== STORED && kind !== "kept") this.spans.push({ start, end, kind, text });
    }
    this.spans.sort((one, other) => one.start - other.start);
    this.spanStarts = this.spans.map((span) => span.start);
    this.findKinds();
  }

  // Add an archive, or replace the facts on one.
  store(known, { start, end, rows, flags }) {
    const day = this.days[Math.floor(start / DAY) - this.firstDay];
    if (day) day.rows += rows - (known < 0 ? 0 : this.rows[known]);
    if (known >= 0) {
      this.rows[known] = rows;
      this.flags[known] = flags;
      return;
    }
    const at = firstAbove(this.starts, start);
    this.rows.splice(at, 0, rows);
    this.starts = inserted(this.starts, at, start);
    this.ends = inserted(this.ends, at, end);
    this.flags = inserted(this.flags, at, flags);
    this.arrived.add(start);
    if (day) day.archives += 1;
    for (const gap of this.gaps) {
      pieces(gap.start, gap.end, DAY, start, end, (from, to) => {
        const missed = this.days[Math.floor(from / DAY) - this.firstDay];
        if (missed) missed.missing = Math.max(0, missed.missing - (to - from));
      });
    }
  }

  // Remove a range from the spans.
  cutSpans(start, end) {
    this.spans = this.spans.flatMap((span) => {
      if (span.end <= start || span.start >= end) return [span];
      return [{ ...span, end: start }, { ...span, start: end }].filter((rest) => rest.start < rest.end);
    });
  }

  // Make sure that the days of a range are among those shown.
  addDays(start, end) {
    const first = Math.floor(start / DAY);
    const last = Math.floor((end - 1) / DAY);
    const blank = () => ({ rows: 0, archives: 0, stored: 0, missing: 0, kinds: new Set() });
    if (!this.days.length) this.firstDay = first;
    while (this.lastDay < last && this.days.length < MOST_DAYS) this.days.push(blank());
    while (this.firstDay > first && this.days.length < MOST_DAYS) {
      this.days.unshift(blank());
      this.firstDay -= 1;
    }
  }

  get lastDay() {
    return this.firstDay + this.days.length - 1;
  }

  readRuns(runs) {
    let at = 0;
    let reached = 0;
    for (const [skipped, width, number] of runs) {
      reached += skipped;
      for (let done = 0; done < number; done += 1, at += 1) {
        this.starts[at] = reached;
        reached += width;
        this.ends[at] = reached;
      }
    }
  }

  // Flag the archives within a mark.
  setMark({ start, end, flag }) {
    for (let at = firstAbove(this.starts, start - 1); at < this.starts.length && this.ends[at] <= end; at += 1) {
      this.flags[at] |= flag;
    }
  }

  markWords(flag, { start, end }) {
    return this.marks.find((mark) => mark.flag === flag && mark.start <= start && end <= mark.end)?.text ?? "";
  }

  // Note what occurs on each day, for the strip, and in the whole, for the legend.
  findKinds() {
    const masks = new Int32Array(this.days.length).fill(-1);
    for (let at = 0; at < this.starts.length; at += 1) {
      const day = Math.floor(this.starts[at] / DAY) - this.firstDay;
      if (day >= 0) masks[day] = Math.max(masks[day], 0) | this.flags[at];
    }
    this.days.forEach((day, at) => { day.kinds = kindsOf(masks[at]); });
    for (const { start, end, kind } of this.spans) {
      const first = Math.max(Math.floor(start / DAY), this.firstDay);
      for (let number = first; number * DAY < end; number += 1) this.days[number - this.firstDay]?.kinds.add(kind);
    }
    this.used = new Set(this.days.flatMap((day) => [...day.kinds]));
  }

  // The cells between two times, in order; none of them goes beyond midnight.
  cells(from, to) {
    const found = [];
    for (let at = firstAbove(this.starts, from - 2 * DAY); at < this.starts.length && this.starts[at] < to; at += 1) {
      pieces(this.starts[at], this.ends[at], DAY, from, to, (start, end) =>
        found.push(newCell(STORED, start, end, this.flags[at], this.rows[at], "")));
    }
    const archives = found.length;
    for (const { start, end, kind, text } of this.spansBetween(from, to)) {
      const width = CUT.has(kind) ? Math.min(this.width, DAY) : DAY;
      pieces(start, end, width, from, to, (begin, stop) => found.push(newCell(kind, begin, stop, 0, 0, text)));
    }
    return found.length > archives ? found.sort((one, other) => one.start - other.start) : found;
  }

  // The spans between two times.
  spansBetween(from, to) {
    return this.spans.slice(0, firstAbove(this.spanStarts, to - 1)).filter(({ end }) => end > from);
  }

  gapAt(at) {
    const found = firstAbove(this.gapStarts, at) - 1;
    return found >= 0 && at < this.gaps[found].end ? found : -1;
  }

  // The words of `core.health.gap_list.reason_words`.
  reason({ kind, end }) {
    if (kind === "in progress") return "started";
    const optional = kind === "never asked" && this.configured && (this.since === null || end <= this.since);
    return optional ? "never asked, and not part of nightly runs" : kind;
  }

  command(gap) {
    if (typeof gap.command === "string") return gap.command;
    const date = (at) => (at % DAY ? iso(at) : dayOf(at));
    return `${gap.command[0]}--start ${date(gap.start)} --end ${date(gap.end)}${gap.command[1]}`;
  }
}

// A copy of a typed array with one more value.
function inserted(values, at, value) {
  const longer = new values.constructor(values.length + 1);
  longer.set(values.subarray(0, at));
  longer[at] = value;
  longer.set(values.subarray(at), at + 1);
  return longer;
}

// A cell, which a picture gives a place. All have the same form, which makes thousands of them fast.
function newCell(kind, start, end, flags, rows, text) {
  return { kind, start, end, flags, rows, text, key: start, x: 0, y: 0, w: 0, h: 0 };
}

// The names of the flags in a mask, and that anything is stored; none for -1.
function kindsOf(mask) {
  if (mask < 0) return new Set();
  return new Set([STORED, ...Object.keys(FLAG).filter((name) => mask & FLAG[name])]);
}

function ranges(rows, more) {
  let reached = 0;
  return rows.map(([skipped, seconds, ...rest]) => {
    const start = reached + skipped;
    reached = start + seconds;
    return { start, end: reached, ...more(...rest) };
  });
}

// Call `each` with the pieces of a range between the grid lines of a width, within the limits.
function pieces(start, end, width, from, to, each) {
  let at = start > from ? start : from;
  const last = end < to ? end : to;
  while (at < last) {
    const line = Math.min((Math.floor(at / width) + 1) * width, (Math.floor(at / DAY) + 1) * DAY, last);
    each(at, line);
    at = line;
  }
}
