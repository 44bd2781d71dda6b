// A part of an answer whose token probabilities are shown: a press, Enter or Space says what else could have come.
(() => {
  const make = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });
  const visible = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\r", "␍").replaceAll("\t", "⇥");

  const row = ([text, percent, share, came]) => {
    const line = make("li", came ? "came" : "");
    const bar = make("span", "bar");
    bar.append(make("span", ""));
    bar.firstChild.style.width = `${100 * share}%`;
    line.append(make("bdi", "", visible(text) || "∅"), bar, make("span", "share", percent));
    if (came) line.append(make("span", "said", "came"));
    return line;
  };

  const fill = (box, tokens) => {
    box.replaceChildren();
    tokens.forEach(([text, percent, likeliest], index) => {
      const place = tokens.length > 1 ? `Token ${index + 1} of ${tokens.length}: ` : "";
      const head = make("p", "", place);
      head.append(make("bdi", "", visible(text) || "∅"), ` came with ${percent}`);
      const list = make("ul", "");
      list.append(...likeliest.map(row));
      box.append(head, list);
    });
  };

  // In the top layer, which no box of the page cuts off; the browser closes it on Escape and on a press elsewhere.
  const boxIn = (root) => {
    let box = root.querySelector(":scope > .odds-box");
    if (!box) {
      box = make("div", "odds-box");
      box.popover = "auto";
      box.setAttribute("role", "dialog");
      box.setAttribute("aria-label", "What could have come here");
      box.tabIndex = -1;
      root.append(box);
    }
    return box;
  };

  const open = (part) => {
    const box = boxIn(part.closest(".gradio-container"));
    fill(box, JSON.parse(part.dataset.odds));
    box.showPopover();
    const at = part.getBoundingClientRect();
    const size = box.getBoundingClientRect();
    const below = at.bottom + 6 + size.height <= window.innerHeight;
    box.style.left = `${Math.max(8, Math.min(at.left, window.innerWidth - size.width - 8))}px`;
    box.style.top = `${Math.max(8, below ? at.bottom + 6 : at.top - size.height - 6)}px`;
    const away = () => box.hidePopover();
    window.addEventListener("scroll", away, { capture: true, once: true });
    box.addEventListener("scroll", (event) => event.stopPropagation());
  };

  const partOf = (event) => event.target.closest?.(".odds-text .odd");

  document.addEventListener("click", (event) => {
    const part = partOf(event);
    if (part && window.getSelection().isCollapsed) open(part);
  });

  // One stop of the Tab key for all parts: the arrows go from one to the next.
  document.addEventListener("keydown", (event) => {
    const part = partOf(event);
    if (!part) return;
    const next = { ArrowRight: part.nextElementSibling, ArrowLeft: part.previousElementSibling }[event.key];
    if (event.key === "Enter" || event.key === " ") open(part);
    else if (next) {
      part.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    } else return;
    event.preventDefault();
  });
})();
