// Tables first: they work without the charts.
for (const table of document.querySelectorAll(".sortable")) {
  const heads = Array.from(table.querySelectorAll("th"));
  const value = (row, i) => {
    const cell = row.cells[i], text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text.replaceAll(",", ""));
    return text === "" || text === "–" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = Array.from(table.tBodies[0].rows);
    rows.sort((r, s) => {
      const a = value(r, i), b = value(s, i);
      if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last
      return up ? compare(a, b) : compare(b, a);
    });
    table.tBodies[0].append(...rows);
  }));
}
(async () => {
  const { colour, dark, options, look, axis: plain, title } = charts, data = charts.read("sweep-data");
  const form = document.querySelector(".controls");
  const names = { step: "step", tokens: "tokens", seconds: "time (seconds)" };
  const dashes = ["solid", "dash", "dot", "dashdot", "longdash"], symbols = ["circle", "square", "diamond", "triangle-up", "triangle-down"];

  await charts.load();

  // One hue after the other for names; from blue to red in the order of the values for numbers.
  const hue = (i, n, ordered) => (ordered ? 250 - (n > 1 ? (240 * i) / (n - 1) : 0) : (i * 137.5 + 215) % 360);
  const paint = (i, n, ordered) => `hsl(${hue(i, n, ordered)}, 65%, ${dark() ? 66 : 42}%)`;
  const unique = (values) => Array.from(new Set(values));
  const text = (value) => String(value).replaceAll("&", "&amp;").replaceAll("<", "&lt;"); // plotly reads some HTML
  const label = (value) => text(value === null ? "null" : value);
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

  const layout = (more) => ({ ...look(), ...more(plain()) });

  // The metric against one axis: a point a run, a line through the means for each choice of the other axes.
  const drawAxis = (chart) => {
    const axis = Number(chart.dataset.axis), of = (setting) => data.values[setting][axis];
    const values = unique(data.values.map((v) => v[axis]));
    const numeric = values.every((v) => typeof v === "number") && values.length > 1;
    const positive = numeric && values.every((v) => v > 0);
    const log = positive && Math.max(...values) / Math.min(...values) >= 10;
    const others = (setting) => data.values[setting].filter((_, i) => i !== axis).map(label).join(", ");
    const lines = unique(data.settings.map((_, i) => others(i)));
    const good = data.runs.filter((run) => run.metric !== null).map((run) => run.metric);
    const top = good.length ? Math.max(...good) + 0.08 * (Math.max(...good) - Math.min(...good) || 1) : 1;
    const x = (value) => (numeric ? value : label(value));
    const traces = [];
    lines.forEach((line, i) => {
      const members = data.settings.map((_, s) => s).filter((s) => others(s) === line);
      const style = { color: lines.length > 1 ? paint(i, lines.length, false) : colour("train") };
      const runs = data.runs.filter((run) => members.includes(run.setting));
      const done = runs.filter((run) => run.metric !== null), bad = runs.filter((run) => run.status === "diverged");
      const means = members.map((s) => [of(s), done.filter((run) => run.setting === s).map((run) => run.metric)]).filter(([, m]) => m.length);
      if (numeric) means.sort((a, b) => a[0] - b[0]);
      traces.push({ x: means.map(([v]) => x(v)), y: means.map(([, m]) => mean(m)), name: line || "mean", mode: numeric ? "lines" : "markers", legendgroup: line,
        showlegend: lines.length > 1, line: { ...style, width: 2 }, marker: { symbol: "line-ew", size: 22, line: { ...style, width: 3 } }, hovertemplate: `${line ? line + ": " : ""}mean %{y:.4f}<extra></extra>` });
      traces.push({ x: done.map((run) => x(of(run.setting))), y: done.map((run) => run.metric), text: done.map((run) => `seed ${run.seed}`), mode: "markers", legendgroup: line,
        showlegend: false, marker: { ...style, size: 8, symbol: symbols[i % symbols.length], opacity: 0.75 }, hovertemplate: "%{x}, %{text}: %{y:.4f}<extra></extra>" });
      if (bad.length) traces.push({ x: bad.map((run) => x(of(run.setting))), y: bad.map(() => top), text: bad.map((run) => `seed ${run.seed}`), name: "diverged", mode: "markers", legendgroup: line,
        showlegend: false, marker: { symbol: "x", size: 11, color: colour("bad") }, hovertemplate: "%{x}, %{text}: diverged<extra></extra>" });
    });
    const bad = data.runs.some((run) => run.status === "diverged");
    return Plotly.react(chart, traces, layout((a) => ({
      showlegend: lines.length > 1, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, hovermode: "closest",
      annotations: bad ? [{ xref: "paper", x: 0.01, xanchor: "left", yref: "y", y: top, yanchor: "bottom", text: "✕ diverged", showarrow: false, font: { color: colour("bad"), size: 12 } }] : [],
      xaxis: { ...a, type: log ? "log" : numeric ? "linear" : "category", ...(log ? { tickvals: values, ticktext: values.map((v) => v.toPrecision(2).includes("e") ? v.toExponential(0) : String(Number(v.toPrecision(3)))) } : {}) },
      yaxis: { ...a, title: title(data.metric) },
    })), { ...options, displayModeBar: false });
  };

  const drawCurves = () => {
    const state = { x: form.elements.x.value, loss: form.elements.loss.value, logx: form.elements.logx.checked, logy: form.elements.logy.checked, mean: form.elements.seeds.value === "mean" };
    const ordered = data.axes.length === 1 && data.values.every((v) => typeof v[0] === "number");
    const traces = [];
    data.settings.map(text).forEach((name, i) => {
      const style = { color: paint(i, data.settings.length, ordered), width: state.mean ? 2.2 : 1.5 };
      const runs = data.runs.filter((run) => run.setting === i && run[state.loss].loss.length);
      const common = { legendgroup: name, name, mode: "lines" };
      const few = (xs) => (xs.length < 2 ? "lines+markers" : "lines");
      if (state.mean && runs.length) {
        const at = new Map();
        for (const run of runs) run[state.loss].step.forEach((step, j) => at.set(step, [...(at.get(step) || []), [run[state.loss][state.x][j], run[state.loss].loss[j]]]));
        const rows = Array.from(at).filter(([, all]) => all.length === runs.length).sort((a, b) => a[0] - b[0]).map(([, all]) => [mean(all.map((p) => p[0])), mean(all.map((p) => p[1]))]);
        traces.push({ ...common, x: rows.map((r) => r[0]), y: rows.map((r) => r[1]), mode: few(rows), line: style, hovertemplate: `${name}: %{y:.4f}<extra></extra>` });
      } else runs.forEach((run, j) => {
        const c = run[state.loss];
        traces.push({ ...common, x: c[state.x], y: c.loss, showlegend: j === 0, mode: few(c.loss), line: { ...style, dash: dashes[j % dashes.length] },
          hovertemplate: `${name}, seed ${run.seed}: %{y:.4f}<extra></extra>` });
      });
      const ends = runs.filter((run) => run.status === "diverged").map((run) => [run[state.loss][state.x].at(-1), run[state.loss].loss.at(-1), run.seed]);
      if (ends.length) traces.push({ x: ends.map((e) => e[0]), y: ends.map((e) => e[1]), text: ends.map((e) => `seed ${e[2]}`), legendgroup: name, showlegend: false, name, mode: "markers",
        marker: { symbol: "x", size: 11, color: colour("bad") }, hovertemplate: `${name}, %{text}: diverged<extra></extra>` });
    });
    // A diverging run would flatten all others; a double click shows it in full.
    const sound = data.runs.filter((run) => run.status !== "diverged").flatMap((run) => run[state.loss].loss);
    const cut = !state.logy && sound.length && data.runs.some((run) => run.status === "diverged");
    const low = Math.min(...sound), high = Math.max(...sound), room = 0.05 * (high - low || 1);
    return Plotly.react("loss", traces, layout((a) => ({
      showlegend: true, legend: { orientation: "h", x: 0, y: innerWidth < 640 ? -0.32 : -0.18, yanchor: "top" }, hovermode: "closest",
      xaxis: { ...a, type: state.logx ? "log" : "linear", title: title(names[state.x]) },
      yaxis: { ...a, type: state.logy ? "log" : "linear", ...(cut ? { range: [low - room, high + room] } : {}), title: title(`${state.loss === "val" ? "validation" : "training"} loss (nats per token)`) },
    })), options);
  };

  const draw = () => Promise.all([drawCurves(), ...Array.from(document.querySelectorAll("[data-axis]"), drawAxis)]);
  form.addEventListener("input", drawCurves);
  form.addEventListener("submit", (event) => event.preventDefault());
  charts.onScheme(draw);
  await draw();
  document.body.dataset.drawn = "true";
})().catch(charts.failed("the tables have the numbers"));
