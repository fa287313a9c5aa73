(async () => {
  const { colour, options, look, axis: plain, title } = charts, data = charts.read("curves-data");
  const form = document.querySelector(".controls");
  const names = { step: "step", tokens: "tokens", seconds: "time (seconds)" };

  await charts.load();

  const points = (key, x) => {
    const xs = data.columns[x], ys = data.columns[key] || [];
    const kept = ys.map((y, i) => i).filter((i) => ys[i] !== null && xs[i] !== null);
    return { x: kept.map((i) => xs[i]), y: kept.map((i) => ys[i]) };
  };

  // as in lmlab.runs.curves
  const smooth = (values, weight) => {
    let average = 0;
    return values.map((value, i) => (average += Math.max(1 - weight, 1 / (1 + i / 8)) * (value - average)));
  };


  const layout = (state, more) => {
    const axis = plain();
    return {
      ...look(), hovermode: "x unified", showlegend: false, margin: { l: 50, r: 15, t: 10, b: 45 },
      xaxis: { ...axis, type: state.logx ? "log" : "linear", title: title(names[state.x]), ...(state.x === "step" ? { tickformat: ",~f" } : {}) },
      yaxis: { ...axis },
      ...more(axis),
    };
  };

  const drawLoss = (state) => {
    const train = points("train/loss", state.x), validation = points("val/loss", state.x);
    const ratio = data.bits_per_byte_over_loss, xz = data.xz_bits_per_byte, bad = data.diverged_at;
    const few = train.x.length < 2 ? "markers" : "lines";
    const traces = [
      { ...train, name: "training", showlegend: false, mode: few, opacity: 0.45, line: { color: colour("train"), width: 1 }, hovertemplate: "%{y:.4f}" },
      { x: train.x, y: smooth(train.y, state.smoothing), name: "training (smoothed)", mode: few,
        line: { color: colour("train"), width: 2 }, hovertemplate: "%{y:.4f}" },
      { ...validation, name: "validation", mode: "lines+markers", line: { color: colour("validation"), width: 2 }, marker: { size: 6 },
        text: validation.y.map((y) => (ratio ? ` (${(y * ratio).toFixed(4)} bits per byte)` : "")), hovertemplate: "%{y:.4f}%{text}" },
    ];
    if (validation.y.length) {
      const i = validation.y.indexOf(validation.y.reduce((a, b) => Math.min(a, b)));
      traces.push({ x: [validation.x[i]], y: [validation.y[i]], name: "best validation", mode: "markers", hoverinfo: "skip",
        marker: { symbol: "star", size: 14, color: colour("validation"), line: { color: colour("page"), width: 1 } } });
    }
    const shapes = [], annotations = [];
    const log = (value, on) => (on ? Math.log10(value) : value); // annotations on a log axis want exponents
    if (ratio && xz) {
      shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: xz / ratio, y1: xz / ratio, line: { dash: "dash", width: 1, color: colour("muted") } });
      const below = validation.y[validation.y.length - 1] > xz / ratio;
      annotations.push({ xref: "paper", x: 1, xanchor: "right", y: log(xz / ratio, state.logy), yanchor: below ? "top" : "bottom",
        text: `xz: ${xz.toFixed(2)} bits per byte`, showarrow: false, font: { color: colour("muted"), size: 12 } });
    }
    if (bad && bad[state.x] !== undefined) {
      shapes.push({ type: "line", yref: "paper", y0: 0, y1: 1, x0: bad[state.x], x1: bad[state.x], line: { dash: "dot", width: 2, color: colour("bad") } });
      annotations.push({ yref: "paper", y: 1, yanchor: "top", x: log(bad[state.x], state.logx), xanchor: "right",
        text: `not a number at step ${bad.step.toLocaleString("en")} `, showarrow: false, font: { color: colour("bad"), size: 12 } });
    }
    return Plotly.react("loss", traces.filter((trace) => trace.x.length), layout(state, (axis) => ({
      shapes, annotations, showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      yaxis: { ...axis, type: state.logy ? "log" : "linear", title: title("loss (nats per token)") },
    })), options);
  };

  const drawOther = (chart, state) => {
    const series = points(chart.dataset.key, state.x);
    const trace = { ...series, mode: series.x.length < 2 ? "markers" : "lines", line: { color: colour("train"), width: 1.5 }, hovertemplate: "%{y}<extra></extra>" };
    return Plotly.react(chart, [trace], layout(state, (axis) => ({ yaxis: { ...axis, rangemode: "tozero" } })), { ...options, displayModeBar: false });
  };

  const draw = () => {
    const state = { x: form.elements.x.value, logx: form.elements.logx.checked, logy: form.elements.logy.checked, smoothing: Number(form.elements.smoothing.value) };
    return Promise.all([drawLoss(state), ...Array.from(document.querySelectorAll("[data-key]"), (chart) => drawOther(chart, state))]);
  };

  form.addEventListener("input", draw);
  form.addEventListener("submit", (event) => event.preventDefault());
  charts.onScheme(draw);
  await draw();
  document.body.dataset.drawn = "true";
})().catch(charts.failed("loss.png beside this page shows the loss"));
