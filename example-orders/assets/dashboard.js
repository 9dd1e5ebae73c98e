// What pages do beside links and forms: light or dark, keeping up to date, the slider, and charts. Without it all of them work, but for
// the charts, whose figures are in tables.
"use strict";
(() => {
  const root = document.documentElement;
  const stored = (value) => {
    try {
      if (value !== undefined) localStorage.setItem("theme", value);
      return localStorage.getItem("theme");
    } catch { return null; } // a browser that keeps nothing
  };
  const choose = (theme) => { if (theme === "light" || theme === "dark") root.dataset.theme = theme; };
  choose(stored());
  root.classList.add("scripted");
  const isDark = () => root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;

  const main = () => document.getElementById("main");
  const say = (text) => { const status = document.getElementById("announced"); if (status) status.textContent = text; };

  // Asks for the content of a page, and puts in what differs. While one answer is awaited, the last wish is kept. The service is told to
  // which session the page belongs, and whether nobody need be there: what a page does by itself keeps no session from its end.
  let busy = false, wish = null;
  async function show(url, byItself = false) {
    if (busy) { wish = [url, byItself]; return; }
    busy = true;
    const headers = { "X-Page-Of": main().dataset.of };
    if (byItself) headers["X-By-Itself"] = "1";
    try {
      await htmx.ajax("GET", url, { source: main(), target: main(), swap: "outerMorph", headers });
    } finally {
      busy = false;
      if (wish) { const next = wish; wish = null; show(...next); }
    }
  }
  const here = () => location.pathname + location.search;
  const isLive = () => main()?.hasAttribute("data-live");
  // A list under somebody's pointer or focus, or one that was scrolled, stays as it is; a button says that there is something new.
  let pointed = 0, later;
  document.addEventListener("pointermove", (event) => { if (event.target.closest?.("[data-list]")) pointed = Date.now(); });
  function isHeld() {
    const list = document.querySelector("[data-list]");
    return !!list && (list.contains(document.activeElement) || Date.now() - pointed < 5000 || list.getBoundingClientRect().top < -1);
  }
  function follow() {
    if (!isLive() || sliding) return;
    const newer = document.getElementById("newer");
    clearTimeout(later);
    if (newer && isHeld()) {
      if (newer.hidden) say("There is something new in the list.");
      newer.hidden = false;
      later = setTimeout(follow, 500);
    } else {
      if (newer) newer.hidden = true;
      show(here(), true);
    }
  }
  document.addEventListener("changed", follow);
  document.addEventListener("click", (event) => {
    if (event.target.id !== "newer") return;
    pointed = 0;
    scrollTo(0, 0);
    event.target.blur();
    follow();
  });

  // A page that is opened behind others connects when somebody looks at it: a browser has six connections to a shop.
  document.addEventListener("readystatechange", () => {
    const live = document.getElementById("live");
    if (!document.hidden || !live) return;
    const attribute = "hx-sse:connect", place = live.getAttribute(attribute);
    live.removeAttribute(attribute);
    document.addEventListener("visibilitychange", () => {
      hear();
      live.setAttribute(attribute, place);
      htmx.process(live);
    }, { once: true });
  }, { once: true });

  // A live page hears from the service every five seconds at least. Where it does not, it says so, and since when.
  let heard = Date.now(), broken = false, title = document.title;
  const hear = () => { heard = Date.now(); broken = false; const offline = document.getElementById("offline"); if (offline) offline.hidden = true; };
  for (const name of ["changed", "alive", "htmx:sse:after:connection"]) document.addEventListener(name, hear);
  // Nobody is signed in any more: where to do that.
  document.addEventListener("htmx:sse:error", (event) => { broken = true; if (event.detail.status === 401) location.reload(); });
  setInterval(() => {
    const offline = document.getElementById("offline");
    if (!offline?.hidden || !isLive() || Date.now() - heard < (broken ? 1000 : 15000)) return;
    const since = new Date(heard).toISOString().slice(11, 19);
    offline.textContent = "No connection to the shop since " + since + " UTC. The page shows how it was then; load it again to see whether that has changed.";
    offline.hidden = false;
  }, 1000);
  // While the shop cannot answer, what is shown stays, and is asked for again. Any other error is a page as well, and is shown as one.
  const failed = (event) => event.detail.ctx?.response?.status >= 500;
  document.addEventListener("htmx:before:swap", (event) => { if (failed(event)) event.preventDefault(); });
  document.addEventListener("htmx:response:error", (event) => {
    if (!failed(event)) return;
    say("The page could not be brought up to date.");
    setTimeout(() => { if (isLive()) show(here(), true); }, 2000);
  });

  // The slider: while it moves the page follows, and the address is that of the moment.
  let sliding = false;
  const urlOf = (form) => {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value !== "") query.append(name, value);
    const text = query.toString();
    return form.getAttribute("action") + (text ? "?" + text : "");
  };
  document.addEventListener("input", (event) => {
    const slider = event.target;
    if (!slider.matches("input[data-moments]")) return;
    sliding = true;
    const moments = JSON.parse(slider.dataset.moments);
    const moment = moments[Number(slider.value)] ?? "";
    const form = slider.form;
    form.elements.as_of.value = moment;
    const text = moment ? moment.replace("T", " ").replace(/(\.\d{3})\d*/, "$1").replace("Z", "") + " UTC" : "now";
    slider.setAttribute("aria-valuetext", text);
    const when = document.getElementById("when");
    if (when) when.textContent = text;
    const url = urlOf(form);
    history.replaceState(null, "", url);
    show(url);
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("input[data-moments]")) sliding = false;
    // A list is filtered at once; the button is for those without scripts.
    if (event.target.matches("form[data-at-once] select")) event.target.form.requestSubmit();
  });
  // All boxes of a list at once.
  document.addEventListener("change", (event) => {
    const of = event.target.dataset?.all;
    if (of) for (const box of event.target.form.querySelectorAll(`input[name="${of}"]`)) box.checked = event.target.checked;
  });
  let typed;
  document.addEventListener("input", (event) => {
    if (!event.target.matches("form[data-at-once] input[type=search]")) return;
    clearTimeout(typed);
    typed = setTimeout(() => event.target.form.requestSubmit(), 250);
  });
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("form[data-at-once]")) return;
    event.preventDefault();
    const url = urlOf(form);
    history.replaceState(null, "", url);
    show(url);
  });

  // Charts
  const drawn = new Map();
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  function draw(element) {
    const points = element.dataset.points;
    const width = Math.floor(element.clientWidth);
    const key = [points, width, isDark()].join("|");
    if (!width || drawn.get(element)?.key === key) return;
    drawn.get(element)?.plot.destroy();
    const { x, series, unit } = JSON.parse(points);
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const isDays = element.dataset.chart === "days";
    const number = (value) => value == null ? "" : value.toLocaleString("en", { maximumFractionDigits: 2 });
    // Bars of one day stand side by side, so that none hides another.
    const bars = (n) => uPlot.paths.bars(series.length === 1 ? { size: [0.6, 40] } : { size: [0.4, 20], align: n === 0 ? -1 : 1 });
    const plot = new uPlot({
      width,
      height: element.classList.contains("small") ? 160 : 220,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      cursor: { y: false },
      legend: { show: false },
      scales: { x: isDays ? { range: [x[0] - 43200, x[x.length - 1] + 43200] } : {}, y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(high ?? 0, 1) * 1.1] } },
      axes: [
        { ...axis, values: (_, all) => all.map((at) => { const time = new Date(at * 1000).toISOString(); return isDays ? time.slice(5, 10) : time.slice(11, 16); }), space: 60, size: 30,
          // Days are marked where they are, and as many as there is room for.
          ...(isDays ? { splits: () => x.filter((_, n) => (x.length - 1 - n) % Math.ceil(x.length * 70 / width) === 0) } : {}) },
        { ...axis, size: 60, values: (_, all) => all.map((value) => number(value) + (unit ? " " + unit : "")) },
      ],
      series: [
        { label: "Time", value: (_, at) => at == null ? "" : new Date(at * 1000).toISOString().slice(0, isDays ? 10 : 16).replace("T", " ") },
        ...series.map((one, n) => ({
          label: one.name,
          stroke: colour("--series-" + (n + 1)),
          fill: isDays ? colour("--series-" + (n + 1)) : undefined,
          width: isDays ? 0 : 2,
          paths: isDays ? bars(n) : undefined,
          points: { show: false },
          value: (_, value) => number(value),
        })),
      ],
    }, [x, ...series.map((one) => one.values)], element);
    drawn.set(element, { key, plot });
  }
  function drawAll() {
    if (typeof uPlot === "undefined") return;
    for (const [element, { plot }] of drawn) if (!element.isConnected) { plot.destroy(); drawn.delete(element); }
    document.querySelectorAll("[data-points]").forEach(draw);
  }

  document.addEventListener("DOMContentLoaded", () => {
    title = document.title;
    const button = document.getElementById("theme");
    const name = () => { if (button) button.textContent = isDark() ? "Light" : "Dark"; };
    if (button) {
      button.hidden = false;
      name();
      button.addEventListener("click", () => { choose(stored(isDark() ? "light" : "dark") ?? (isDark() ? "light" : "dark")); name(); drawAll(); });
    }
    drawAll();
    new ResizeObserver(drawAll).observe(document.body);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { name(); drawAll(); });
  });
  document.addEventListener("htmx:after:swap", () => {
    // Who does not look at the page hears what its title says.
    if (document.title !== title) say(title = document.title);
    // A slider that somebody has moved does not follow its attribute.
    const slider = document.getElementById("moment");
    if (slider && !sliding) slider.value = slider.getAttribute("value");
    drawAll();
  });
})();
