// One text: the model that writes it, its tokens, its figures.

import { complete } from "./api.js";
import { focusCard, hideCard, leaveCard, showCard } from "./card.js";
import { Grouper, bits, tokensOf } from "./tokens.js";

const ALTERNATIVES = 8;
const LIMITS = [1, 2, 4, 6, 9];
const REASONS = { length: "length reached", stop: "ended by the model or a stop text" };

export class Panel {
  constructor(models, chosen, actions) {
    this.actions = actions;
    this.models = models;
    this.groups = [];
    this.current = -1;
    this.root = document.getElementById("panel").content.firstElementChild.cloneNode(true);
    const find = (selector) => this.root.querySelector(selector);
    [this.text, this.error, this.numbers] = [".text", ".error", ".numbers"].map(find);
    [this.select, this.facts] = ["select", ".facts"].map(find);
    [this.copy, this.more] = [".copy", ".more"].map(find);
    this.copy.hidden = !navigator.clipboard; // only pages of this machine, or with TLS, have one
    this.text.dataset.empty = "The text appears here.";
    for (const model of models) this.select.add(new Option(model.id, model.id));
    this.select.value = chosen;
    this.select.addEventListener("change", () => this.describe());
    this.describe();
    this.copy.addEventListener("click", () => this.toClipboard());
    this.more.addEventListener("click", () => actions.generate(this.whole()));
    this.listen();
  }

  describe() {
    const model = this.models.find((m) => m.id === this.select.value);
    const { step, parameters } = model.lmlab;
    this.facts.textContent = `step ${step.toLocaleString("en")} · ${compact(parameters)} parameters · context ${model.max_model_len}`;
    this.text.setAttribute("aria-label", `Text of ${model.id}`);
  }

  async generate(body, signal) {
    this.clear();
    this.root.classList.add("busy");
    const grouper = new Grouper();
    const started = performance.now();
    let first = 0;
    let reason = null;
    try {
      const request = { ...body, model: this.select.value, echo: true, logprobs: ALTERNATIVES };
      for await (const chunk of complete(request, signal)) {
        const [choice] = chunk.choices;
        if (!choice) continue;
        const given = !this.read;
        this.read = true;
        if (!given && choice.logprobs.tokens.length) first ||= performance.now();
        for (const token of tokensOf(choice.logprobs)) {
          this.tokens += given ? 0 : 1;
          this.add(grouper.push(token), given);
        }
        if (given) this.add(grouper.flush(), true);
        reason = choice.finish_reason ?? reason;
        this.count(first);
      }
      this.add(grouper.flush(), false);
      this.count(first, REASONS[reason], performance.now() - started);
    } catch (error) {
      this.add(grouper.flush(), false);
      if (error.name === "AbortError") this.count(first, "stopped");
      else this.fail(error);
    } finally {
      this.root.classList.remove("busy");
      this.copy.disabled = this.more.disabled = !this.groups.length;
    }
    return this.tokens;
  }

  clear() {
    hideCard();
    Object.assign(this, { groups: [], current: -1, tokens: 0, read: false });
    this.text.replaceChildren();
    this.numbers.textContent = "";
    this.error.hidden = true;
    this.copy.disabled = this.more.disabled = true;
  }

  fail(error) {
    this.error.textContent = error.message;
    this.error.hidden = false;
    this.actions.failed(error);
  }

  add(group, given) {
    if (!group) return;
    const scores = group.tokens.map(bits);
    const known = scores.every((score) => score !== null);
    group.bits = known ? scores.reduce((a, b) => a + b, 0) : null;
    group.given = given;
    const span = document.createElement("span");
    const level = known ? LIMITS.filter((limit) => group.bits >= limit).length : 0;
    span.className = `t s${level}${given ? " given" : ""}${group.text.startsWith("\n") ? " break" : ""}`;
    span.textContent = group.text;
    span.dataset.index = this.groups.push(group) - 1;
    this.text.append(span);
  }

  count(first, reason = "", total = 0) {
    const written = this.groups.filter((g) => !g.given);
    const sum = written.reduce((a, g) => a + g.bits, 0);
    const seconds = (performance.now() - first) / 1000;
    const parts = [`${this.tokens} token${this.tokens === 1 ? "" : "s"}`];
    if (this.tokens > 1 && first) parts.push(`${Math.round((this.tokens - 1) / seconds)} tokens/s`);
    if (this.tokens) parts.push(`${(sum / this.tokens).toFixed(2)} bits/token`);
    if (total) parts.push(`${(total / 1000).toFixed(2)} s`);
    if (reason) parts.push(reason);
    this.numbers.textContent = parts.join(" · ");
  }

  whole(end = this.groups.length) {
    return this.groups.slice(0, end).map((g) => g.text).join("");
  }

  async toClipboard() {
    await navigator.clipboard.writeText(this.whole());
    this.copy.textContent = "Copied";
    setTimeout(() => (this.copy.textContent = "Copy"), 1500);
  }

  show(index) {
    const span = this.text.children[index];
    if (!span) return;
    this.current = index;
    showCard(span, this.groups[index], (text) => this.actions.generate(this.whole(index) + text));
  }

  listen() {
    const at = (event) => event.target.closest?.(".t")?.dataset.index;
    this.text.addEventListener("pointerover", (event) => {
      if (event.pointerType === "mouse" && at(event)) this.show(Number(at(event)));
    });
    this.text.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") leaveCard();
    });
    this.text.addEventListener("click", (event) => {
      if (at(event)) this.show(Number(at(event)));
      else hideCard();
    });
    this.text.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      if (event.key in moves && this.groups.length && !event.altKey && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        this.move(this.current + moves[event.key]);
      } else if (event.key === "Tab" && !event.shiftKey && this.current >= 0) {
        if (document.getElementById("card").querySelector("button:not(:disabled)")) {
          event.preventDefault();
          focusCard();
        }
      }
    });
    this.text.addEventListener("blur", () => leaveCard());
  }

  move(to) {
    const index = Math.max(0, Math.min(this.groups.length - 1, to));
    const span = this.text.children[index];
    span.scrollIntoView({ block: "nearest" });
    this.show(index);
    const group = this.groups[index];
    this.actions.say(`${group.text}${group.bits === null ? "" : `, ${group.bits.toFixed(1)} bits`}`);
  }
}

function compact(count) {
  return Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(count);
}
