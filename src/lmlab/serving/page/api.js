// The server's interface: the models, and the events of a stream.

let key = sessionStorage.getItem("lmlab-key") ?? "";

export function setKey(value) {
  key = value;
  sessionStorage.setItem("lmlab-key", value);
}

export class ApiFailure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function request(path, options = {}) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiFailure("The server does not answer. Is it running?", 0);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw new ApiFailure(body?.error?.message ?? `The server answered ${response.status}.`, response.status);
}

export async function listModels() {
  return (await (await request("/v1/models")).json()).data;
}

// Yields the objects of a streamed completion.
export async function* complete(body, signal) {
  const options = { method: "POST", body: JSON.stringify({ ...body, stream: true }), signal };
  const response = await request("/v1/completions", options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ApiFailure("The server ended the stream early.", 0);
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const object = JSON.parse(data);
      if (object.error) throw new ApiFailure(object.error.message, 0);
      yield object;
    }
  }
}
