(async () => {
  const { colour, options, look, axis: plain, title } = charts, data = charts.read("profile-data");
  await charts.load();

  const palette = ["#2f6fb5", "#d9480f", "#2b8a3e", "#862e9c", "#e67700", "#0b7285", "#c2255c", "#5c940d",
    "#6741d9", "#868e96", "#c92a2a", "#1c7ed6"];
  const layout = (more) => {
    const axis = plain();
    return { ...look(), xaxis: { ...axis, title: title("time in the step (ms)") }, yaxis: axis, ...more(axis) };
  };

  const drawRanges = () => {
    const shown = (name) => (name.startsWith("block ") ? "block" : name);
    const names = [...new Set(data.bars.map((bar) => shown(bar.name)))];
    const traces = names.map((name, i) => {
      const bars = data.bars.filter((bar) => shown(bar.name) === name);
      return {
        type: "bar", orientation: "h", name, marker: { color: palette[i % palette.length] },
        base: bars.map((bar) => 1e3 * bar.begin), x: bars.map((bar) => 1e3 * bar.seconds), y: bars.map((bar) => -bar.depth),
        text: bars.map((bar) => bar.name), textposition: "inside", insidetextanchor: "middle", constraintext: "both",
        hovertemplate: "%{text}: %{x:.3f} ms<extra></extra>",
      };
    });
    Plotly.newPlot("ranges", traces, layout((axis) => ({
      barmode: "overlay", bargap: 0.08, legend: { orientation: "h", y: -0.34, yanchor: "top" }, showlegend: true,
      yaxis: { ...axis, showticklabels: false, showgrid: false, fixedrange: true },
    })), options);
  };

  const drawMemory = () => {
    const memory = data.memory, times = memory.times.map((at) => 1e3 * at), unit = 1e6;
    const still = Object.entries(data.state).map(([name, size]) => [name, times.map(() => size)]);
    const traces = [...still, ...Object.entries(memory.series)].map(([name, sizes], i) => ({
      x: times, y: sizes.map((size) => size / unit), name, stackgroup: "memory", mode: "lines",
      line: { width: 0.5, shape: "hv", color: palette[i % palette.length] }, hovertemplate: "%{y:,.2f} MB",
    }));
    const peak = 1e3 * memory.peak_at;
    Plotly.newPlot("memory-chart", traces, layout((axis) => ({
      hovermode: "x unified", legend: { orientation: "h", y: -0.18 },
      yaxis: { ...axis, title: title("MB"), rangemode: "tozero" },
      shapes: [{ type: "line", x0: peak, x1: peak, y0: 0, y1: 1, yref: "paper", line: { color: colour("ink"), dash: "dot", width: 1 } }],
      annotations: [{ x: peak, y: 1, yref: "paper", text: "peak", showarrow: false, xanchor: "left", yanchor: "top" }],
    })), options);
  };

  const draw = () => {
    if (data.bars.length) drawRanges();
    if (data.memory) drawMemory();
  };
  draw();
  charts.onScheme(draw);
})().catch(charts.failed("the tables have the numbers"));
