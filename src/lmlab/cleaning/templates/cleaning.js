"use strict";
(() => {
  const data = JSON.parse(document.getElementById("cleaning-data").textContent);
  const KEPT = -1;
  const element = (id) => document.getElementById(id);
  const make = (tag, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };
  const number = (value) => value === null ? "–" : Number(value.toPrecision(4)).toLocaleString("en-US", { maximumSignificantDigits: 4 });
  const whole = (value) => value.toLocaleString("en-US");

  // The bounds as they are set now; the criteria keep those of the run.
  const bounds = data.criteria.map((criterion) => ({ low: criterion.low, high: criterion.high }));
  const fails = (bound, value) => value !== null && value !== undefined
    && ((bound.low !== null && value < bound.low) || (bound.high !== null && value > bound.high));

  // Returns the first criterion that fails; `removed` is the one that removed the document in the
  // run: later steps gave no scores. Duplicates stay removed.
  const replay = (value, removed) => {
    for (let i = 0; i < bounds.length; i += 1) if (fails(bounds[i], value(i))) return i;
    return removed < KEPT ? removed : KEPT;
  };

  const changes = () => {
    let leave = 0, back = 0;
    data.removed.forEach((removed, row) => {
      const now = replay((i) => data.scores[i][row], removed);
      if (removed === KEPT && now !== KEPT) leave += 1;
      if (removed >= 0 && now === KEPT) back += 1;
    });
    return { leave, back };
  };

  const BINS = 48;
  // A score's axis: linear, or logarithmic where large values are far from small ones.
  const scale = (values, criterion) => {
    const sorted = values.filter((v) => v !== null).sort((a, b) => a - b);
    const given = [criterion.low, criterion.high].filter((v) => v !== null);
    const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
    const least = Math.min(0, at(0), ...given), most = Math.max(at(0.995), ...given.filter((v) => v <= 1 || v <= 20 * (at(0.995) || 1))) || 1;
    const log = least >= 0 && most > 50 && most > 20 * Math.max(at(0.25), 1);
    const to = log ? (v) => Math.log1p(v) : (v) => v, from = log ? (v) => Math.expm1(v) : (v) => v;
    const low = to(least), high = to(most * 1.05);
    return {
      least, most: from(high),
      place: (value) => Math.min(1, Math.max(0, (to(value) - low) / (high - low))),
      value: (place) => from(low + place * (high - low)),
    };
  };

  const SVG = "http://www.w3.org/2000/svg";
  const shape = (tag, attributes) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };

  const histogram = (criterion, index) => {
    const values = data.scores[index], axis = scale(values, criterion);
    const kept = new Array(BINS).fill(0), dropped = new Array(BINS).fill(0);
    values.forEach((value, row) => {
      if (value === null) return;
      const bin = Math.min(BINS - 1, Math.floor(axis.place(value) * BINS));
      (data.removed[row] === index ? dropped : kept)[bin] += 1;
    });
    // Square roots: a few removed documents beside many kept ones stay visible.
    const tallest = Math.sqrt(Math.max(1, ...kept.map((n, i) => n + dropped[i])));
    const svg = shape("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": `Histogram of ${criterion.score}` });
    kept.forEach((n, i) => {
      const all = 100 * Math.sqrt(n + dropped[i]) / tallest, part = 100 * Math.sqrt(dropped[i]) / tallest;
      const bar = { x: 100 * i / BINS, width: 92 / BINS };
      if (n) svg.append(shape("rect", { ...bar, y: 100 - all, height: all, class: "kept" }));
      if (dropped[i]) svg.append(shape("rect", { ...bar, y: n ? 100 - Math.min(part, all) : 100 - all, height: n ? Math.min(part, all) : all, class: "dropped" }));
    });
    svg.append(shape("line", { x1: 0, x2: 100, y1: 100, y2: 100, class: "base" }));
    const box = make("div", { className: "histogram" }, make("h3", { textContent: criterion.score }), svg,
      make("div", { className: "axis" }, make("span", { textContent: number(axis.least) }), make("span", { textContent: number(axis.most) })));
    for (const side of ["low", "high"]) {
      if (criterion[side] === null || criterion[side] === undefined) continue;
      const mark = (name) => {
        const line = shape("line", { y1: 0, y2: 100, class: name });
        svg.append(line);
        return (value) => { for (const x of ["x1", "x2"]) line.setAttribute(x, 100 * axis.place(value)); };
      };
      mark("original")(criterion[side]);
      const move = mark("now");
      move(criterion[side]);
      if (!criterion[`${side}_key`]) continue;
      const name = side === "low" ? "at least" : "at most";
      const slider = make("input", { type: "range", min: 0, max: 1000, step: 1, ariaLabel: `${criterion.score} ${name}` });
      const exact = make("input", { type: "number", step: "any", ariaLabel: `${criterion.score} ${name}, as a number` });
      const set = (value, source) => {
        bounds[index][side] = value;
        if (source !== slider) slider.value = Math.round(1000 * axis.place(value));
        if (source !== exact) exact.value = Number(value.toPrecision(4));
        move(value);
      };
      const isCount = values.every((v) => v === null || Number.isInteger(v)) && Number.isInteger(criterion[side]);
      slider.addEventListener("input", () => {
        const value = axis.value(slider.value / 1000);
        set(isCount ? Math.round(value) : Number(value.toPrecision(3)), slider);
        update();
      });
      exact.addEventListener("input", () => { if (exact.value !== "") { set(Number(exact.value), exact); update(); } });
      resets.push(() => set(criterion[side], null));
      set(criterion[side], null);
      box.append(make("div", { className: "bound" }, make("span", { textContent: name }), slider, exact));
    }
    return box;
  };

  const resets = [];
  const update = () => {
    const { leave, back } = changes();
    const kept = data.removed.filter((removed) => removed === KEPT).length;
    const after = kept - leave + back, all = Math.max(1, data.removed.length);
    const moved = data.criteria.flatMap((criterion, i) => ["low", "high"]
      .filter((side) => bounds[i][side] !== criterion[side]).map((side) => `${criterion[`${side}_key`]}=${Number(bounds[i][side].toPrecision(6))}`));
    element("change").textContent = moved.length
      ? `${whole(leave)} kept documents would be removed, ${whole(back)} removed ones would return: ${whole(after)} of ${whole(all)} kept (${(100 * after / all).toFixed(1)} %), ${(100 * kept / all).toFixed(1)} % before.`
      : `${whole(kept)} of ${whole(all)} kept (${(100 * kept / all).toFixed(1)} %).`;
    element("reset").hidden = element("command").hidden = !moved.length;
    element("command").textContent = `python clean.py ... ${moved.join(" ")}`;
    document.body.dataset.change = JSON.stringify({ leave, back });
    list();
  };
  element("reset").addEventListener("click", () => { for (const reset of resets) reset(); update(); });

  const marked = (text, spans) => {
    const parts = [];
    let done = 0;
    // Offsets count characters, JavaScript's strings are of UTF-16 units.
    const characters = Array.from(text);
    for (const [start, end] of spans) {
      if (start < done) continue;
      parts.push(characters.slice(done, start).join(""), make("mark", { textContent: characters.slice(start, end).join("") }));
      done = end;
    }
    parts.push(characters.slice(done).join(""));
    return parts;
  };

  const card = (item, outcome) => {
    const now = replay((i) => item.scores[data.criteria[i].score], item.removed);
    const head = make("header", {}, make("b", { className: outcome === "kept" ? "kept" : "", textContent: outcome }));
    if (item.score !== null) head.append(make("span", { textContent: number(item.score) }));
    head.append(make("span", { textContent: item.id }));
    if (item.metadata.url) head.append(make("span", { textContent: item.metadata.url }));
    if (item.removed === KEPT && now !== KEPT) head.append(make("b", { textContent: `would be removed (${data.criteria[now].score})` }));
    if (item.removed >= 0 && now === KEPT) head.append(make("b", { className: "kept", textContent: "would return" }));
    const pre = make("pre", { tabIndex: 0 });
    if (item.before) pre.append(make("span", { className: "cut", textContent: `${whole(item.before)} characters before\n` }));
    pre.append(...marked(item.text, item.spans));
    if (item.after) pre.append(make("span", { className: "cut", textContent: `\n${whole(item.after)} characters after` }));
    const names = Object.entries(item.scores).map(([name, value]) => {
      const i = data.criteria.findIndex((criterion) => criterion.score === name);
      return make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: number(value), className: i >= 0 && fails(bounds[i], value) ? "fails" : "" }));
    });
    const more = Object.entries(item.metadata).map(([name, value]) => make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value })));
    return make("article", { className: "document" }, head, pre, make("details", {}, make("summary", { textContent: "scores and metadata" }), make("dl", {}, ...names, ...more)));
  };

  const CHANGED = "would change with these thresholds";
  const changed = (item) => {
    const now = replay((i) => item.scores[data.criteria[i].score], item.removed);
    return (item.removed === KEPT) !== (now === KEPT);
  };

  const PAGE = 10;
  let shown = PAGE;
  const list = () => {
    const outcome = element("outcome").value, wanted = element("find").value.toLowerCase();
    const pairs = outcome === CHANGED
      ? data.outcomes.flatMap((name) => data.texts[name].filter(changed).map((item) => [item, name]))
      : (data.texts[outcome] ?? []).map((item) => [item, outcome]);
    const found = pairs.filter(([item]) => !wanted || item.text.toLowerCase().includes(wanted) || item.id.toLowerCase().includes(wanted));
    element("texts").replaceChildren(...found.slice(0, shown).map(([item, name]) => card(item, name)));
    element("found").textContent = `${whole(found.length)} ${found.length === 1 ? "document" : "documents"}`;
    element("more").hidden = found.length <= shown;
  };
  const again = () => { shown = PAGE; list(); };
  element("outcome").append(...[...data.outcomes, CHANGED].map((name) => make("option", { value: name, textContent: name })));
  element("outcome").addEventListener("change", again);
  element("find").addEventListener("input", again);
  element("more").addEventListener("click", () => { shown += PAGE; list(); });

  const boxes = data.criteria.map((criterion, i) => data.scores[i].some((v) => v !== null) ? histogram(criterion, i) : null).filter(Boolean);
  element("histograms").append(...boxes);
  element("score-section").hidden = !boxes.length;
  update();
  document.body.dataset.drawn = "yes";
})();
