// The page: controls, shortcuts, and one or two panels.

import { listModels, setKey } from "./api.js";
import { backToToken, cardIsOpen, hideCard } from "./card.js";
import { Panel } from "./panel.js";

// name of the field, label, lowest, highest, step, value, value that is left out
const CONTROLS = [
  ["max_tokens", "Tokens", 1, 512, 1, 200, null],
  ["temperature", "Temperature", 0, 2, 0.05, 0.8, null],
  ["top_p", "Top p", 0.01, 1, 0.01, 1, 1],
  ["top_k", "Top k (0: off)", 0, 200, 1, 0, 0],
  ["min_p", "Min p", 0, 1, 0.01, 0, 0],
  ["repetition_penalty", "Repetition penalty", 1, 2, 0.05, 1, 1],
];
const NARROW = matchMedia("(max-width: 56rem)");
const STILL = matchMedia("(prefers-reduced-motion: reduce)");
const $ = (id) => document.getElementById(id);
const fields = new Map();
const panels = [];
let models = [];
let running = null;

function addControl([name, label, low, high, step, value]) {
  const row = document.createElement("div");
  row.className = "control";
  const title = document.createElement("label");
  title.textContent = label;
  title.htmlFor = name;
  const [slider, number] = ["range", "number"].map((type) =>
    Object.assign(document.createElement("input"), { type, min: low, max: high, step, value }));
  Object.assign(number, { id: name, inputMode: "decimal", step: step === 1 ? 1 : "any", required: true });
  slider.setAttribute("aria-label", `${label}, slider`);
  slider.addEventListener("input", () => (number.value = slider.value));
  number.addEventListener("input", () => (slider.value = number.value));
  row.append(title, slider, number);
  $("controls").append(row);
  fields.set(name, { slider, number });
}

function sampling() {
  const body = {};
  for (const [name, , , , , , off] of CONTROLS) {
    const value = Number(fields.get(name).number.value);
    if (value !== off) body[name] = value;
  }
  const stop = $("stops").value.split("|").filter(Boolean).map((s) => s.replaceAll("\\n", "\n"));
  if (stop.length) body.stop = stop;
  if ($("reseed").checked) $("seed").value = Math.floor(Math.random() * 1e6);
  body.seed = Number($("seed").value) || 0;
  return body;
}

async function generate(prompt) {
  if (prompt !== undefined) $("prompt").value = prompt;
  if (!panels.length) return;
  if (!$("form").checkValidity()) $("sampling").open = true; // what is folded cannot be pointed out
  if (!$("form").reportValidity()) return;
  running?.abort();
  const own = (running = new AbortController());
  const body = { prompt: $("prompt").value, ...sampling() };
  $("stop").disabled = false;
  say("Generating");
  const behavior = STILL.matches ? "instant" : "smooth";
  if (NARROW.matches) $("panels").parentElement.scrollIntoView({ behavior });
  const counts = await Promise.all(panels.map((panel) => panel.generate(body, own.signal)));
  if (running !== own) return;
  running = null;
  $("stop").disabled = true;
  say(own.signal.aborted ? "Stopped" : `Done: ${counts.join(" and ")} tokens`);
}

function stop() {
  running?.abort();
}

function say(text) {
  $("status").textContent = text;
}

function failed(error) {
  if (error.status === 401) {
    $("key-row").hidden = false;
    $("key").focus();
  }
}

function arrange() {
  const wanted = $("compare").checked ? 2 : 1;
  while (panels.length > wanted) panels.pop().root.remove();
  while (panels.length < wanted) {
    const model = models[panels.length % models.length];
    const panel = new Panel(models, model.id, { generate, failed, say });
    panels.push(panel);
    $("panels").append(panel.root);
  }
}

async function load() {
  try {
    models = await listModels();
  } catch (error) {
    $("models").textContent = error.message;
    failed(error);
    return;
  }
  const names = models.map((m) => m.id).join(" · ");
  $("models").textContent = names;
  document.title = `${names} – lmlab play`;
  const longest = Math.max(...models.map((m) => m.max_model_len));
  const { slider, number } = fields.get("max_tokens");
  slider.max = number.max = longest;
  slider.value = number.value = Math.min(200, longest);
  if (!$("prompt").value) $("prompt").value = models[0].lmlab.prompt;
  $("compare-row").hidden = models.length < 2;
  $("compare").checked = models.length > 1;
  arrange();
}

function shortcuts(event) {
  const typing = event.target.matches("textarea, input, select");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    generate();
  } else if (event.key === "Escape") {
    backToToken();
    if (cardIsOpen()) hideCard();
    else stop();
  } else if (event.key === "/" && !typing) {
    event.preventDefault();
    $("prompt").focus();
  }
}

CONTROLS.forEach(addControl);
if (/Mac|iPhone|iPad/.test(navigator.platform)) {
  for (const key of document.querySelectorAll("kbd[data-key]")) key.textContent = "⌘ ↵";
}
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
$("stop").addEventListener("click", stop);
$("compare").addEventListener("change", () => {
  stop();
  arrange();
});
const colour = () => document.body.classList.toggle("coloured", $("coloured").checked);
$("coloured").addEventListener("change", () => {
  colour();
  $("legend").hidden = !$("coloured").checked;
});
$("key").addEventListener("change", () => {
  setKey($("key").value);
  load();
});
document.addEventListener("keydown", shortcuts);
document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest("#card, .text")) hideCard();
});
addEventListener("resize", hideCard);
colour();
$("sampling").open = !NARROW.matches;
load();
