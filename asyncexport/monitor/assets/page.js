// Puts the pictures into the page, one after the other, so that the page answers in between.

const STALE_SECONDS = 36 * HOUR;
const GAPS_AT_ONCE = 200;

function showAge(now) {
  const seconds = Date.now() / 1000 - now;
  if (seconds < 90) return;
  const age = document.getElementById("age");
  age.textContent = `${duration(seconds)} ago, `;
  if (seconds > STALE_SECONDS) {
    age.className = "stale";
    age.textContent = `${duration(seconds)} ago: this page is old, make a new one; `;
  }
}

// Add buttons to the gaps that are listed, and list the others when they are asked for.
class GapList {
  constructor(views, listed) {
    this.views = views;
    this.gaps = views.flatMap((view) => view.data.gaps.map((gap, number) => ({ view, gap, number })));
    this.body = document.querySelector("#gaps tbody");
    document.querySelectorAll("code.command").forEach(addCopy);
    if (!this.body) return;
    [...this.body.rows].forEach((row, at) => this.addShow(row, this.gaps[at]));
    this.listed = listed;
    this.more = button("", () => this.listMore());
    this.body.closest(".scroll").after(make("div", { class: "buttons" }, this.more));
    this.nameButton();
  }

  nameButton() {
    const left = this.gaps.length - this.listed;
    this.more.textContent = `List ${count(Math.min(left, GAPS_AT_ONCE))} more of ${count(left)}`;
    this.more.parentElement.hidden = left <= 0;
  }

  listMore() {
    for (const entry of this.gaps.slice(this.listed, this.listed + GAPS_AT_ONCE)) this.body.append(this.row(entry));
    this.listed += GAPS_AT_ONCE;
    this.nameButton();
  }

  row(entry) {
    const { view, gap } = entry;
    const command = view.data.command(gap);
    const code = make("code", { class: "command" }, command);
    const texts = [make("bdi", {}, view.data.name), iso(gap.start), iso(gap.end), duration(gap.end - gap.start),
      view.data.reason(gap), command ? code : view.data.noCommand];
    const row = make("tr", {}, ...texts.map((text) => make("td", {}, text)));
    if (command) addCopy(code);
    this.addShow(row, entry);
    return row;
  }

  addShow(row, { view, number, gap }) {
    const show = button("Show", () => {
      view.showGap(number, true);
      view.grid.box.scrollIntoView({ block: "nearest" });
    });
    show.setAttribute("aria-label", `Show the gap from ${iso(gap.start)} in the picture`);
    row.lastElementChild.append(" ", show);
  }
}

// Put the pictures of runs and requests into their sections.
async function showHistory(data) {
  for (const [place, made] of [["runs", runsView(data.runs)], ["requests", requestsView(data.requests)]]) {
    await pause();
    document.querySelector(`#${place} .pictures`).replaceChildren(made.element);
    await made.picture?.render();
  }
}

async function main() {
  document.getElementById("no-script").remove();
  const data = JSON.parse(document.getElementById("data").textContent);
  showAge(data.now);
  const views = [];
  for (const [number, raw] of data.exports.entries()) {
    await pause();
    const exported = new ExportData(raw, data.kinds);
    await pause();
    const view = new ExportView(exported);
    views.push(view);
    if (!exported.days.length) continue;
    document.querySelector(`#export-${number} .pictures`).append(view.element);
    await view.render();
  }
  await showHistory(data);
  await pause();
  new GapList(views, data.listed);
  if (data.live) new LivePage(views).connect(data.live);
  document.documentElement.dataset.ready = "yes";
}

main();
