"use strict";
(async () => {
  const data = JSON.parse(document.getElementById("profile-data").textContent);
  const touch = matchMedia("(pointer: coarse)").matches;
  const bytes = Uint8Array.from(atob(document.getElementById("plotly-gz").textContent), (c) => c.charCodeAt(0));
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(unpacked).text();
  document.head.append(script);

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const palette = ["#2f6fb5", "#d9480f", "#2b8a3e", "#862e9c", "#e67700", "#0b7285", "#c2255c", "#5c940d",
    "#6741d9", "#868e96", "#c92a2a", "#1c7ed6"];
  const options = { responsive: true, displaylogo: false, displayModeBar: touch || innerWidth < 640 ? false : "hover", showSendToCloud: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };
  const layout = (more) => {
    const axis = { gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false, automargin: true };
    return {
      paper_bgcolor: colour("page"), plot_bgcolor: colour("page"),
      font: { family: "system-ui, sans-serif", size: 13, color: colour("ink") },
      hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("ink") } },
      dragmode: touch ? false : "zoom", margin: { l: 55, r: 15, t: 10, b: 45 },
      xaxis: { ...axis, title: { text: "time in the step (ms)", font: { size: 13 } } }, yaxis: { ...axis },
      ...more(axis),
    };
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
      yaxis: { ...axis, title: { text: "MB", font: { size: 13 } }, rangemode: "tozero" },
      shapes: [{ type: "line", x0: peak, x1: peak, y0: 0, y1: 1, yref: "paper", line: { color: colour("ink"), dash: "dot", width: 1 } }],
      annotations: [{ x: peak, y: 1, yref: "paper", text: "peak", showarrow: false, xanchor: "left", yanchor: "top" }],
    })), options);
  };

  const draw = () => {
    if (data.bars.length) drawRanges();
    if (data.memory) drawMemory();
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})().catch((error) => {
  const problem = document.getElementById("problem");
  problem.textContent = `The charts cannot be drawn in this browser (${error.message}); the tables are complete.`;
  problem.hidden = false;
});
