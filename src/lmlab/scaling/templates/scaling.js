(async () => {
  const { colour, dark, options, look, axis: plain, title } = charts, data = charts.read("scaling-data");
  await charts.load();

  const [least, most] = [Math.log(Math.min(...data.runs.c)), Math.log(Math.max(...data.runs.c))];
  const shade = (flops) => {
    const t = most > least ? Math.min(1, Math.max(0, (Math.log(flops) - least) / (most - least))) : 0.5;
    return `hsl(${Math.round(260 - 225 * t)} 62% ${dark() ? 66 : 42}%)`;
  };
  const layout = (x, y, more = {}) => {
    const axis = { ...plain(), exponentformat: "power" };
    return {
      ...look(), margin: { l: 60, r: 15, t: 10, b: 50 }, hovermode: "closest", legend: { orientation: "h", y: -0.2, yanchor: "top" },
      xaxis: { ...axis, type: "log", title: title(x) }, yaxis: { ...axis, title: title(y), ...more },
    };
  };
  const runs = data.runs;
  const text = runs.n.map((n, i) => `N ${n.toPrecision(3)}, D ${runs.d[i].toPrecision(3)}, C ${runs.c[i].toPrecision(3)}`);
  const points = (x, y) => ({ x, y, text, mode: "markers", name: "runs", marker: { size: 6, color: runs.c.map(shade) },
    hovertemplate: "%{text}<br>%{y:.4f}<extra></extra>" });
  const band = (line, name, ink, fill) => [
    { x: line.x, y: line.high, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false },
    { x: line.x, y: line.low, mode: "lines", line: { width: 0 }, fill: "tonexty", fillcolor: fill, hoverinfo: "skip", name: `${name}: 95 %` },
    { x: line.x, y: line.y, mode: "lines", line: { color: ink, width: 2 }, name, hovertemplate: "%{x:.3g} FLOPs: %{y:.4g}<extra></extra>" },
  ];

  const draw = () => {
    const blue = colour("train") || "#2f6fb5", orange = dark() ? "#ff8a50" : "#d9480f";
    const law = data.curves.map((curve) => ({ x: curve.curve[0], y: curve.curve[1], mode: "lines", showlegend: false,
      line: { color: shade(curve.c), width: 1.5 }, hovertemplate: `${curve.c.toPrecision(3)} FLOPs<br>N %{x:.3g}: %{y:.4f}<extra></extra>` }));
    const lowest = data.curves.map((curve) => curve.curve[1].indexOf(Math.min(...curve.curve[1])));
    const optima = { x: data.curves.map((c, i) => c.curve[0][lowest[i]]), y: data.curves.map((c, i) => c.curve[1][lowest[i]]),
      mode: "markers", name: "optimum of the law", marker: { symbol: "diamond", size: 9, color: orange }, hovertemplate: "N %{x:.3g}: %{y:.4f}<extra></extra>" };
    const parabolas = data.profiles.map((profile) => ({ x: profile.curve[0], y: profile.curve[1], mode: "lines", showlegend: false, hoverinfo: "skip",
      line: { color: shade(profile.c), width: 1, dash: "dot" } }));
    const low = Math.min(...runs.loss), high = Math.max(...runs.loss), pad = 0.05 * (high - low);
    Plotly.newPlot("profiles", [...parabolas, ...law, points(runs.n, runs.loss), optima],
      layout("parameters N", "loss", { type: "log", range: [Math.log10(low - pad), Math.log10(high + pad)] }), options);

    const inside = data.profiles.filter((profile) => !profile.edge), outside = data.profiles.filter((profile) => profile.edge);
    const mark = (list, name, symbol) => ({ x: list.map((p) => p.c), y: list.map((p) => p.n), mode: "markers", name,
      marker: { size: 9, color: orange, symbol }, hovertemplate: "%{x:.3g} FLOPs: N %{y:.3g}<extra></extra>" });
    Plotly.newPlot("sizes", [
      ...(data.isoflop_sizes ? band(data.isoflop_sizes, "approach 2", orange, dark() ? "rgba(255,138,80,.16)" : "rgba(217,72,15,.13)") : []),
      ...band(data.sizes, "approach 3", blue, dark() ? "rgba(120,170,240,.22)" : "rgba(47,111,181,.18)"),
      ...(inside.length ? [mark(inside, "optimum of a budget", "circle")] : []),
      ...(outside.length ? [mark(outside, "at the edge of its sizes: left out", "circle-open")] : []),
    ], layout("training FLOPs C", "best size N", { type: "log" }), options);

    Plotly.newPlot("frontier", [
      ...band(data.frontier, "best loss", blue, dark() ? "rgba(120,170,240,.22)" : "rgba(47,111,181,.18)"), points(runs.c, runs.loss),
      { x: [data.target], y: [data.frontier.y.at(-1)], mode: "markers", name: "target", marker: { symbol: "star", size: 13, color: orange },
        hovertemplate: "%{x:.3g} FLOPs: %{y:.4f}<extra></extra>" },
      ...(data.checks.length ? [{ x: data.checks.map((c) => c.c), y: data.checks.map((c) => c.loss), mode: "markers", name: "runs, not fitted",
        marker: { symbol: "diamond", size: 9, color: orange }, hovertemplate: "%{x:.3g} FLOPs: %{y:.4f}<extra></extra>" }] : []),
    ], layout("training FLOPs C", "loss", { type: "log" }), options);

    Plotly.newPlot("residuals", [{ ...points(runs.c, runs.residual.map((r) => 100 * r)), hovertemplate: "%{text}<br>%{y:+.3f} %<extra></extra>" }],
      { ...layout("training FLOPs C", "residual (%)", { zeroline: true, zerolinecolor: colour("ink") }), showlegend: false }, options);
  };
  draw();
  charts.onScheme(draw);
})().catch(charts.failed("the tables have the numbers"));
