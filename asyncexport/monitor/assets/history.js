// The pictures of the last runs, and of requests over time.

const RUNS_HEIGHT = 90;
const REQUESTS_HEIGHT = 130;
const AXIS_HEIGHT = 18;

function runState(run) {
  if (run.running) return { words: "in progress", cell: { kind: "in progress", flags: 0 } };
  if (run.ended === null) return { words: "was killed or crashed", cell: { kind: "never asked", flags: 0 } };
  if (run.code === 0) return { words: "exit code 0", cell: { kind: STORED, flags: 0 } };
  if (run.code === 9) return { words: "exit code 9: stopped by --max-duration", cell: { kind: STORED, flags: FLAG.refreshed } };
  return { words: `exit code ${run.code}${run.error ? `: ${run.error}` : ""}`, cell: { kind: "parked", flags: 0 } };
}

function runWords(run) {
  const took = run.ended === null ? "" : `, took ${duration(Math.max(0, run.ended - run.began))}`;
  const parked = run.parked ? `, ${count(run.parked)} parked` : "";
  const where = run.host ? ` on ${run.host}` : "";
  const did = `${counted(run.stored, "bundle")} stored${parked}, ${counted(run.requests, "request")}`;
  return `${minuteOf(run.began)}: ${run.command}${where}, ${runState(run).words}${took}; ${did}`;
}

// Runs as columns, the newest to the right. The height grows with the duration, slower than it.
function layoutRuns(runs, width) {
  const step = Math.min(22, (width - 4) / Math.max(runs.length, 1));
  const tookOf = (run) => Math.sqrt(Math.max(0, (run.ended ?? run.began) - run.began));
  const most = Math.max(1, ...runs.map(tookOf));
  const items = runs.map((run, at) => {
    const h = 14 + (tookOf(run) / most) * (RUNS_HEIGHT - 22);
    return { run, key: at, x: 4 + at * step, y: RUNS_HEIGHT - h - 2, w: step - 2.5, h };
  });
  return {
    height: RUNS_HEIGHT + AXIS_HEIGHT,
    items,
    frame: (scene) => {
      if (!runs.length) return;
      scene.text(0, RUNS_HEIGHT + 13, dayOf(runs[0].began));
      const right = Math.max(items.at(-1).x + items.at(-1).w, 160);
      if (runs.length > 1) scene.text(right, RUNS_HEIGHT + 13, dayOf(runs.at(-1).began), { anchor: "end" });
    },
    drawItem: (pens, item) => drawCell(pens, item, runState(item.run).cell),
  };
}

function runsView(runs) {
  if (!runs.length) return { element: make("p", {}, "No run is on record.") };
  const picture = new Picture({
    name: `The last ${counted(runs.length, "run")}`,
    help: "A column per run, the newest to the right. Arrow keys move.",
    layout: (width) => layoutRuns(runs, width),
    describe: (item) => runWords(item.run),
  });
  const entries = [[{ kind: STORED, flags: 0 }, "ended with 0"],
    [{ kind: STORED, flags: FLAG.refreshed }, "ended with 9 (--max-duration)"],
    [{ kind: "parked", flags: 0 }, "ended with another code"],
    [{ kind: "never asked", flags: 0 }, "killed or crashed"],
    [{ kind: "in progress", flags: 0 }, "in progress"]];
  const used = new Set(runs.map((run) => JSON.stringify(runState(run).cell)));
  const table = new LazyTable("Table of runs", ["Began", "Command", "Took", "End", "Stored", "Parked", "Requests"],
    () => runs.map((run) => [minuteOf(run.began), run.command,
      run.ended === null ? "–" : duration(Math.max(0, run.ended - run.began)), runState(run).words, count(run.stored),
      count(run.parked), count(run.requests)]).reverse(), [4, 5, 6]);
  const shown = entries.filter(([cell]) => used.has(JSON.stringify(cell)));
  return { picture, element: make("div", {}, legendOf(shown), picture.element, table.element) };
}

function requestWords({ unit, kinds }, [at, ...counts]) {
  const named = kinds.map((kind, number) => [kind, counts[number]]).filter(([, number]) => number);
  const total = named.reduce((sum, [, number]) => sum + number, 0);
  const [refused, failed] = counts.slice(kinds.length);
  const when = unit === DAY ? dayOf(at) : minuteOf(at);
  const parts = named.map(([kind, number]) => `${count(number)} ${kind}`).join(", ");
  const bad = failed ? `, ${count(failed)} without a good answer` : "";
  return `${when}: ${counted(total, "request")}${parts ? ` (${parts})` : ""}, ${count(refused)} answered with 429${bad}`;
}

// Requests as bars, with those answered with 429 as a hatched part at the bottom.
function layoutRequests(requests, width) {
  const { unit, kinds, counts } = requests;
  const first = counts[0][0];
  const left = 46;
  const slots = (counts.at(-1)[0] - first) / unit + 1;
  const step = Math.min(24, (width - left) / slots);
  const totals = counts.map(([, ...numbers]) => numbers.slice(0, kinds.length).reduce((sum, one) => sum + one, 0));
  const most = Math.max(1, ...totals);
  const tall = REQUESTS_HEIGHT - 10;
  const items = counts.map((row, at) => {
    const h = Math.max(2, (totals[at] / most) * tall);
    const refused = row[kinds.length + 1];
    const x = left + ((row[0] - first) / unit) * step;
    return { row, refused: (refused / most) * tall, hasRefused: refused > 0, key: row[0], x, y: REQUESTS_HEIGHT - h,
      w: Math.max(1, step - 1.5), h };
  });
  return {
    height: REQUESTS_HEIGHT + AXIS_HEIGHT,
    items,
    frame: (scene) => {
      scene.text(left - 6, 18, count(most), { anchor: "end" });
      scene.text(left - 6, REQUESTS_HEIGHT, "0", { anchor: "end" });
      const name = (at) => (unit === DAY ? dayOf(at) : minuteOf(at).slice(5, 16));
      scene.text(left, REQUESTS_HEIGHT + 13, name(first));
      const right = Math.max(items.at(-1).x + items.at(-1).w, left + 170);
      if (counts.length > 1) scene.text(right, REQUESTS_HEIGHT + 13, name(counts.at(-1)[0]), { anchor: "end" });
      lines(scene.pen("idle"), [left, REQUESTS_HEIGHT + 0.5, width, REQUESTS_HEIGHT + 0.5]);
    },
    drawItem: (pens, item) => {
      rectangle(pens("solid"), item);
      if (!item.hasRefused) return;
      const box = { ...item, h: Math.max(6, item.refused), y: REQUESTS_HEIGHT - Math.max(6, item.refused) };
      rectangle(pens("backing"), box);
      rectangle(pens("frame"), box);
      hatch(pens("hatch"), box, 4);
    },
  };
}

function requestsView(requests) {
  if (!requests.counts.length) return { element: make("p", {}, "No request is on record.") };
  const unit = requests.unit === DAY ? "day" : "hour";
  const picture = new Picture({
    name: `Requests per ${unit}`,
    help: `A bar per ${unit}. Arrow keys move.`,
    layout: (width) => layoutRequests(requests, width),
    describe: (item) => requestWords(requests, item.row),
  });
  const heads = [unit === "day" ? "Day" : "Hour", ...requests.kinds, "429", "no good answer"];
  const table = new LazyTable(`Table of requests per ${unit}`, heads, () => requests.counts.map(([at, ...counts]) =>
    [unit === "day" ? dayOf(at) : minuteOf(at), ...counts.map(count)]).reverse(), heads.keys());
  const entries = [[{ kind: STORED, flags: 0 }, "requests"], [{ kind: "never asked", flags: 0 }, "of these, answered with 429"]];
  return { picture, element: make("div", {}, legendOf(entries), picture.element, table.element) };
}
