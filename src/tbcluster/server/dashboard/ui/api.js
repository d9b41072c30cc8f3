// Requests to the server that sent this page, with the key if one is needed.

const KEY = "tbcluster-key";

export class KeyNeeded extends Error {}

let onKeyNeeded = () => {};

/** Called when the server refuses for want of a key, or of a better one. */
export function whenKeyNeeded(action) {
  onKeyNeeded = action;
}

/** In this tab only. */
export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** As fetch; throws KeyNeeded where the server wants a key. */
export async function ask(path, options = {}) {
  const headers = { ...(options.headers ?? {}) };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.status === 401) {
    onKeyNeeded(Boolean(key));
    throw new KeyNeeded("an API key is needed");
  }
  return answer;
}

/** What a refusal says. */
export async function refusal(answer) {
  try {
    const body = await answer.json();
    return body.error?.message ?? body.detail ?? `HTTP ${answer.status}`;
  } catch {
    return `HTTP ${answer.status}`;
  }
}

/** The data of each server-sent event of an answer, as text. */
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      const parts = rest.split(/\r?\n\r?\n/);
      rest = parts.pop();
      for (const part of parts) {
        const data = part
          .split(/\r?\n/)
          .filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(5).replace(/^ /, ""));
        if (data.length) yield data.join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
