// The card with the alternatives of a token.

import { bits, partial, percent, visible } from "./tokens.js";

const card = document.getElementById("card");
let leaving = 0;
let owner = null;

export const cardIsOpen = () => !card.hidden;

export function hideCard() {
  clearTimeout(leaving);
  owner?.classList.remove("chosen");
  owner = null;
  card.hidden = true;
}

// Hides the card unless the pointer reaches it soon.
export function leaveCard() {
  clearTimeout(leaving);
  leaving = setTimeout(() => {
    if (!card.contains(document.activeElement)) hideCard();
  }, 250);
}

card.addEventListener("pointerenter", () => clearTimeout(leaving));
card.addEventListener("pointerleave", (event) => {
  if (event.pointerType === "mouse") leaveCard();
});

// `branch(text)` continues the text before the group by another token.
export function showCard(span, group, branch) {
  clearTimeout(leaving);
  if (owner === span) return;
  owner?.classList.remove("chosen");
  owner = span;
  span.classList.add("chosen");
  card.replaceChildren(...group.tokens.flatMap((token, i) => section(token, i, group, branch)));
  card.append(make("p", "note", "Probabilities of the model, before temperature and filters. Choose one to continue from it."));
  card.hidden = false;
  const box = span.getClientRects()[0] ?? span.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = card;
  const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - width - 8));
  const below = box.bottom + 8;
  const top = below + height > innerHeight && box.top > height + 8 ? box.top - height - 8 : below;
  card.style.setProperty("--left", `${left}px`);
  card.style.setProperty("--top", `${Math.max(8, Math.min(top, innerHeight - height - 8))}px`);
  card.scrollTop = 0;
}

export const focusCard = () => card.querySelector("button:not(:disabled)")?.focus();

export function backToToken() {
  const text = owner?.closest(".text");
  if (!text || !card.contains(document.activeElement)) return false;
  text.focus();
  return true;
}

function section(token, index, group, branch) {
  const many = group.tokens.length > 1;
  const title = many ? `${group.text}: token ${index + 1} of ${group.tokens.length}, ${visible(token.text)}` : visible(token.text);
  const heading = make("h2", "", title);
  if (token.logprob === null) {
    return [heading, make("p", "", "The first token of the prompt: nothing comes before it.")];
  }
  const rank = token.alternatives.findIndex(([text]) => text === token.text);
  const place = rank < 0 ? `not among the first ${token.alternatives.length}` : `rank ${rank + 1}`;
  const facts = make("p", "", `${percent(Math.exp(token.logprob))} · ${bits(token).toFixed(2)} bits · ${place}`);
  const list = document.createElement("ol");
  const rows = token.alternatives.map(([text, logprob], i) => row(text, logprob, i === rank, index ? null : branch));
  if (rank < 0) rows.push(row(token.text, token.logprob, true, null));
  for (const element of rows) {
    const item = document.createElement("li");
    item.append(element);
    list.append(item);
  }
  return [heading, facts, list];
}

function row(text, logprob, taken, branch) {
  const probability = Math.exp(logprob);
  const element = make("button", taken ? "row taken" : "row");
  element.type = "button";
  element.disabled = taken || !branch || partial(text) || /^<\|.*\|>$/.test(text);
  const track = make("span", "track");
  const fill = document.createElement("i");
  fill.style.setProperty("--p", probability);
  track.append(fill);
  element.append(make("code", "", visible(text)), track, make("span", "", percent(probability)));
  if (taken) element.setAttribute("aria-label", `${visible(text)}, ${percent(probability)}, taken`);
  element.addEventListener("click", () => {
    hideCard();
    branch(text);
  });
  return element;
}

function make(tag, name, text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.textContent = text;
  return element;
}
