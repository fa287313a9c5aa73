"use strict";
// What the charts of all pages share: plotly, colours, buttons, the look of the axes.
const charts = (() => {
  const touch = matchMedia("(pointer: coarse)").matches;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
  const onScheme = (draw) => matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  const load = async () => {
    const bytes = Uint8Array.from(atob(document.getElementById("plotly-gz").textContent), (c) => c.charCodeAt(0));
    const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(unpacked).text();
    document.head.append(script);
  };
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  // The buttons are listed because plotly's own list has one that uploads the chart.
  const options = { responsive: true, displaylogo: false, displayModeBar: touch || innerWidth < 640 ? false : "hover", showSendToCloud: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };
  const axis = () => ({ gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false, automargin: true });
  const title = (text) => ({ text, font: { size: 13 } });
  const look = () => ({
    paper_bgcolor: colour("page"), plot_bgcolor: colour("page"),
    font: { family: "system-ui, sans-serif", size: 13, color: colour("ink") },
    hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("ink") }, namelength: -1 },
    dragmode: touch ? false : "zoom", // a finger scrolls the page
    margin: { l: 55, r: 15, t: 10, b: 45 },
  });
  const failed = (advice) => (error) => {
    const problem = document.getElementById("problem");
    problem.textContent = `The charts could not be drawn (${error}); ${advice}.`;
    problem.hidden = false;
    throw error;
  };
  return { touch, colour, dark, onScheme, load, read, options, axis, title, look, failed };
})();
