"use strict";
(async () => {
  const data = JSON.parse(document.getElementById("rollouts-data").textContent);
  const form = document.getElementById("controls");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const number = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(3));

  // Largest magnitudes over all rollouts, so that colours mean the same at every step.
  const responses = data.rollouts.flatMap((rollout) => rollout.groups.flatMap((group) => group.responses));
  const largest = (key) => responses.reduce((top, response) =>
    response[key].reduce((most, value) => Math.max(most, Math.abs(value)), top), 1e-9);
  const scale = { advantage: largest("advantage"), entropy: largest("entropy") };
  const shade = (key, value) => {
    const strength = Math.round((Math.abs(value) / scale[key]) * 60);
    const hue = key === "entropy" ? "train" : value < 0 ? "bad" : "good";
    return `color-mix(in srgb, var(--${hue}) ${strength}%, transparent)`;
  };

  const row = (response, key) => {
    const made = element("div", "response");
    const mark = element("div", "mark");
    mark.append("reward ", element("b", "", number(response.reward)),
      ` · format ${number(response.format)} · answer ${number(response.answer)}${response.complete ? "" : " · cut off"}`);
    const text = element("div", "text");
    response.tokens.forEach((token, i) => {
      const span = element("span", "", token);
      span.style.background = shade(key, response[key][i]);
      span.title = `advantage ${response.advantage[i]}, entropy ${response.entropy[i]} nats`;
      text.append(span);
    });
    made.append(mark, text);
    return made;
  };

  const draw = () => {
    const rollout = data.rollouts[Number(form.elements.rollout.value)];
    const key = form.elements.colour.value, show = form.elements.show.value;
    form.elements.step.textContent = `${rollout.step.toLocaleString("en")} (reward ${number(rollout.reward)}, length ${rollout.length.toFixed(1)})`;
    const legend = document.getElementById("legend");
    const bar = (from, to) => {
      const made = element("i");
      made.style.background = `linear-gradient(to right, ${shade(key, from)}, ${shade(key, to)})`;
      return made;
    };
    const top = scale[key];
    legend.replaceChildren(...(key === "entropy" ? ["0", bar(0, top), `${top.toFixed(2)} nats`]
      : [`-${top.toFixed(2)}`, bar(-top, 0), bar(0, top), top.toFixed(2)]));
    const body = document.querySelector("#table tbody");
    body.replaceChildren(...Object.entries(rollout.counts).sort().reverse().map(([pair, count]) => {
      const line = element("tr");
      const share = `${((100 * count) / rollout.responses).toFixed(1)} %`;
      line.append(...[...pair.split(","), count, share].map((cell) => element("td", "", cell)));
      return line;
    }));
    const wanted = (response) => show === "all" || (response.answer >= 1) === (show === "right");
    const groups = rollout.groups.map((group) => {
      const kept = group.responses.filter(wanted);
      if (form.elements.sorted.checked) kept.sort((a, b) => b.reward - a.reward);
      if (!kept.length) return null;
      const made = element("div", "group"), title = element("h3", "", group.prompt);
      title.append(element("small", "", `truth: ${group.truth}`));
      made.append(title, ...kept.map((response) => row(response, key)));
      return made;
    }).filter(Boolean);
    document.getElementById("groups").replaceChildren(...(groups.length ? groups : [element("p", "notice", "No such response is recorded at this step.")]));
  };
  form.addEventListener("input", draw);
  form.addEventListener("submit", (event) => event.preventDefault());
  draw();

  const bytes = Uint8Array.from(atob(document.getElementById("plotly-gz").textContent), (c) => c.charCodeAt(0));
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(unpacked).text();
  document.head.append(script);
  const layout = (more) => ({
    paper_bgcolor: colour("page"), plot_bgcolor: colour("page"), font: { family: "system-ui, sans-serif", size: 13, color: colour("ink") },
    margin: { l: 45, r: 10, t: 32, b: 40 }, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, hovermode: "x unified",
    xaxis: { gridcolor: colour("grid"), title: { text: "step", font: { size: 13 } } },
    yaxis: { gridcolor: colour("grid"), zeroline: false, ...more },
  });
  const options = { responsive: true, displayModeBar: false };
  const charts = () => {
    const { reward, accuracy } = data.curves;
    const steps = data.rollouts.map((rollout) => rollout.step);
    const pairs = [...new Set(data.rollouts.flatMap((rollout) => Object.keys(rollout.counts)))].sort().reverse();
    return Promise.all([
      Plotly.react("reward", [
        { ...reward, name: "reward", mode: "lines", line: { color: colour("train") } },
        { ...accuracy, name: "accuracy", mode: "lines+markers", line: { color: colour("validation") } },
      ], layout({}), options),
      Plotly.react("counts", pairs.map((pair) => ({
        x: steps, y: data.rollouts.map((rollout) => (rollout.counts[pair] || 0) / rollout.responses),
        name: `(${pair})`, mode: steps.length < 2 ? "markers" : "lines", stackgroup: "all",
      })), layout({ range: [0, 1] }), options),
    ]);
  };
  await charts();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", charts);
  document.body.dataset.drawn = "yes";
})().catch((error) => {
  const problem = document.getElementById("problem");
  problem.textContent = `The page could not be drawn: ${error}`;
  problem.hidden = false;
});
