// Tokens as text: a character may be spread over several of them.

// Returns how many bytes at the end begin a UTF-8 character that is not complete.
function openBytes(bytes) {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back];
    if (byte >= 0xc0) {
      const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
      return back < length ? back : 0;
    }
    if (byte < 0x80) return 0;
  }
  return 0;
}

// Joins tokens into groups that show whole characters. Almost every group is one token.
export class Grouper {
  constructor() {
    this.pending = [];
  }

  push(token) {
    this.pending.push(token);
    const bytes = this.pending.flatMap((t) => t.bytes);
    return openBytes(bytes) ? null : this.flush();
  }

  flush() {
    if (!this.pending.length) return null;
    const tokens = this.pending;
    this.pending = [];
    const bytes = Uint8Array.from(tokens.flatMap((t) => t.bytes));
    return { tokens, text: new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes) };
  }
}

// Returns the tokens of a chunk: bytes, log-probability in nats, alternatives as [text, logprob].
export function tokensOf(logprobs) {
  return logprobs.bytes.map((bytes, i) => ({
    bytes,
    text: logprobs.tokens[i],
    logprob: logprobs.token_logprobs[i],
    alternatives: Object.entries(logprobs.top_logprobs[i] ?? {}).sort((a, b) => b[1] - a[1]),
  }));
}

export const bits = (token) => (token.logprob === null ? null : -token.logprob / Math.LN2);

export const partial = (text) => /^bytes:(\\x[0-9a-f]{2})+$/.test(text);

// Returns a token's text with its white space to be seen.
export function visible(text) {
  if (partial(text)) return text.slice(6).replaceAll("\\x", " ").trim().toUpperCase() + " (bytes)";
  const marks = { " ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍" };
  // eslint-disable-next-line no-control-regex
  const shown = text.replace(/[ \n\t\r]/g, (c) => marks[c]);
  return shown.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`) || "(empty)";
}

export function percent(probability) {
  const value = probability * 100;
  if (value >= 99.95 && value < 100) return "> 99.9 %";
  if (value < 0.01) return "< 0.01 %";
  return `${value.toFixed(value >= 10 ? 1 : 2)} %`;
}
