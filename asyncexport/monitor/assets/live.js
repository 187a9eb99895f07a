// A page that a run serves: it takes over what the run sends, without being loaded again (dashboard_server.py).

class LivePage {
  constructor(views) {
    this.views = views;
    this.line = document.getElementById("live");
    this.work = Promise.resolve();
  }

  connect(name) {
    const source = new EventSource(`events?after=${encodeURIComponent(name)}`);
    source.addEventListener("message", (event) => this.take(JSON.parse(event.data)));
    source.addEventListener("open", () => { this.line.dataset.state = "live"; });
    source.addEventListener("error", () => {
      this.line.dataset.state = "lost";
      this.say("The connection to the run is lost. The page tries to connect again; `asyncexport status` shows how it went.");
    });
    source.addEventListener("ended", () => {
      source.close();
      this.say(this.line.textContent.replace("Live: t", "T"));
      this.work = this.work.then(() => { this.line.dataset.state = "ended"; });
    });
  }

  say(text) {
    this.line.textContent = text;
  }

  // Messages are worked on one after the other, since drawing lets the browser answer in between.
  take({ progress, page, bundles }) {
    if (progress) this.say(`Live: ${progress}.`);
    this.work = this.work.then(async () => {
      if (page) await this.takePage(page);
      if (bundles) await this.takeBundles(bundles);
    });
  }

  async takeBundles(bundles) {
    for (const view of this.views) {
      const changes = bundles.filter(([name]) => name === view.data.name).map(([, ...change]) => change);
      if (!changes.length) continue;
      view.data.apply(changes);
      this.attach(view);
      await view.update();
    }
  }

  // An export without data has no pictures until its first bundle.
  attach(view) {
    if (view.element.isConnected || !view.data.days.length) return;
    document.querySelector(`#export-${this.views.indexOf(view)} .pictures`).append(view.element);
  }

  // Take over a new page: the verdict, figures, problems, gaps, and the data of all pictures.
  async takePage(html) {
    const page = new DOMParser().parseFromString(html, "text/html");
    const data = JSON.parse(page.getElementById("data").textContent);
    const names = (list) => list.join("\n");
    if (names(data.exports.map((raw) => raw.name)) !== names(this.views.map((view) => view.data.name))) {
      location.reload();
      return;
    }
    document.title = page.title;
    this.takeHeader(page.querySelector("header"));
    for (const [number, raw] of data.exports.entries()) {
      await pause();
      this.takeSection(page, `#export-${number}`, ".problems");
      this.takeSection(page, `#export-${number}`, ".figures");
      const view = this.views[number];
      const fresh = new ExportData(raw, data.kinds);
      view.data = fresh;
      this.attach(view);
      await view.update(fresh);
    }
    const [runs, requests, missing] = ["runs", "requests", "missing"].map((place) => document.getElementById(place));
    if (!isUsed(runs) && !isUsed(requests)) {
      forgetPictures("#runs", "#requests");
      await showHistory(data);
    }
    if (isUsed(missing)) return;
    missing.replaceChildren(...page.getElementById("missing").childNodes);
    new GapList(this.views, data.listed);
  }

  takeHeader(fresh) {
    const header = document.querySelector("header");
    header.className = fresh.className;
    for (const place of ["h1", "#verdict", "#beside", "time"]) {
      header.querySelector(place).textContent = fresh.querySelector(place).textContent;
    }
    const [old, link] = [header, fresh].map((one) => one.querySelector("a")?.parentElement);
    if (old && !link && !isUsed(old)) old.remove();
    if (link && !old) header.querySelector("#verdict").after(link);
  }

  takeSection(page, section, part) {
    const [old, fresh] = [document, page].map((one) => one.querySelector(`${section} ${part}`));
    if (old && fresh) old.replaceWith(fresh);
    else if (old) old.remove();
    else if (fresh) document.querySelector(`${section} .figures`).before(fresh);
  }
}

// Whether the keyboard is in an element, which must then not be replaced.
function isUsed(element) {
  return element.contains(document.activeElement);
}

// Pictures that are about to be replaced need not be drawn again when the colours change.
function forgetPictures(...places) {
  const gone = pictures.filter((picture) => places.some((place) => picture.box.closest(place)));
  for (const picture of gone) pictures.splice(pictures.indexOf(picture), 1);
}
