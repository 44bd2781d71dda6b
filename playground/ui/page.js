// What Gradio's components lack: copying an answer to the letter, Enter that ends a Hangul syllable without sending, what
// a box of tokens stands for, saying why an event was refused before any handler saw it, and saying in each panel that is
// being answered that the server is gone.
(() => {
  const copyText = async (text) => {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.(".copy-answer");
    if (!button) return;
    const answer = button.closest(".message-row").querySelector(".message-content");
    await copyText(answer.textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });

  for (const name of ["keydown", "keypress"]) {
    document.addEventListener(
      name,
      (event) => {
        if (event.key === "Enter" && (event.isComposing || event.keyCode === 229)) event.stopPropagation();
      },
      { capture: true },
    );
  }

  // What the boxes of a lens stand for: one list of names for all of them, one tip for the page.
  const tip = document.createElement("div");
  tip.id = "token-tip";
  tip.role = "tooltip";

  const tokensOf = (box) => {
    const list = box.closest(".boxes").dataset.names.split("\n");
    const names = new Map(list.map((line) => [line.slice(0, line.indexOf(" ")), line.slice(line.indexOf(" ") + 1)]));
    return box.dataset.i.split(" ").map((id) => `${id}  ${names.get(id)}`).join("\n");
  };

  document.addEventListener("pointerover", (event) => {
    const box = event.target.closest?.(".boxes b");
    if (!box) return tip.remove();
    tip.textContent = tokensOf(box);
    document.body.append(tip);
    const place = box.getBoundingClientRect();
    const below = place.bottom + tip.offsetHeight + 8 < innerHeight;
    tip.style.left = `${Math.max(4, Math.min(place.left, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${below ? place.bottom + 4 : place.top - tip.offsetHeight - 4}px`;
  });
  document.addEventListener("scroll", () => tip.remove(), { capture: true, passive: true });

  // Gradio's own client keeps to itself what the server answers where it takes no event: the sentence stands below the
  // prompt, which stays in its box, until the server takes an event of that kind again.
  const EVENTS = /\/gradio_api\/(run\/predict|queue\/join)/;
  const BUSY = "The server has too much to do to take this: press Stop where a panel waits, and try again in a moment.";
  const LONG = "This is longer than the server takes: shorten it.";
  const MANY = "Too many requests come from your address: wait a minute, and try again.";
  const OF_A_PROXY = { 411: LONG, 413: LONG, 429: MANY, 503: BUSY };
  const plainFetch = window.fetch;
  const last = {};

  const tellRefusal = async (kind, answer) => {
    const told = await answer.json().catch(() => ({}));
    if (last[kind] !== answer) return;
    const sentence = (answer.status !== 503 && told.detail) || OF_A_PROXY[answer.status];
    forgetRefusal(kind);
    const box = document.createElement("div");
    Object.assign(box, { className: "error-box refused", role: "alert", textContent: sentence });
    box.dataset.kind = kind;
    document.querySelector("#prompt-bar")?.append(box);
  };

  const forgetRefusal = (kind) => document.querySelector(`.refused[data-kind="${kind}"]`)?.remove();

  window.fetch = async (...request) => {
    const answer = await plainFetch(...request);
    const kind = EVENTS.exec(answer.url)?.[1];
    if (kind && answer.ok) forgetRefusal(kind);
    if (kind) last[kind] = answer.status in OF_A_PROXY ? answer.clone() : null;
    if (last[kind]) tellRefusal(kind, last[kind]);
    return answer;
  };

  const LOOK_MS = 2000;
  const GONE =
    "The server is gone: start it again, then reload this page, if it does not do so by itself. " +
    "What was said so far stays until then.";

  // Gradio's own client tells a lost connection in a toast alone; app_id is the cheapest thing that it serves.
  const serverIsThere = async () => {
    const { root, api_prefix: prefix, app_id: ours } = window.gradio_config;
    try {
      const answer = await fetch(`${root}${prefix}/app_id`, { cache: "no-store" });
      return answer.ok && (await answer.json()).app_id === ours;
    } catch {
      return false;
    }
  };

  const watch = async () => {
    const isGone = document.querySelector(".foot.busy") !== null && !(await serverIsThere());
    for (const panel of document.querySelectorAll("#panels > .column")) {
      const shown = panel.querySelector(".server-gone");
      if (!isGone || !panel.querySelector(".foot.busy")) {
        shown?.remove();
      } else if (!shown) {
        const box = document.createElement("div");
        Object.assign(box, { className: "error-box server-gone", role: "alert", textContent: GONE });
        panel.querySelector(".actions").before(box);
      }
    }
    setTimeout(watch, LOOK_MS);
  };
  watch();
})();
