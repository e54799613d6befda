/* Common parts of the pages: elements, numbers, trees of nodes. */
const at = id => document.getElementById(id);

/* ---- elements: other children become text, so no text is ever parsed as HTML ---- */
const SVG = "http://www.w3.org/2000/svg";
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") element.style.cssText = value ?? "";  // the content security policy forbids the attribute
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(child => child !== null));
  return element;
}
const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/* ---- numbers: a missing one reads "unknown" ---- */
const UNKNOWN = "unknown";
const known = value => typeof value === "number" && Number.isFinite(value);
const fixed = (value, digits) => !known(value) ? UNKNOWN
  : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const count = value => fixed(value, value < 100 && value % 1 ? 1 : 0);
const figures = value => known(value) ? String(Number(value.toPrecision(3))) : UNKNOWN;
const cell = text => text === UNKNOWN ? h("span", { class: "unknown" }, UNKNOWN) : text;

/* ---- trees: show(nodes) draws the nodes that changed; a parent comes before its children ---- */
const LONG = 300;  // longest line in characters that is not folded
function tree(label, opens = node => node.returned || node.parent === null) {
  const element = h("ul", { class: "tree", "aria-label": label }), lines = new Map();

  function figuresOf(node, scored) {
    if (node.finish === null) return h("span", { class: "figures" }, node.over ? "failed" : "sampling …");
    const score = node.score ?? null, inside = score !== null && score >= 0 && score <= 1;
    const steps = (node.steps ?? []).length > 1 && node.steps.every(step => known(step) && step >= 0 && step <= 1) ? node.steps : [];
    return h("span", { class: "figures" },
      inside ? h("span", { class: "bar", "aria-hidden": true }, h("span", { style: `width: ${100 * score}%` })) : null,
      scored ? ["score ", cell(known(score) ? fixed(score, 2) : UNKNOWN), " "] : null,
      steps.length ? h("span", { class: "steps", title: `score after each step: ${steps.map(step => fixed(step, 2)).join(", ")}` },
        steps.map(step => h("span", { style: `height: ${Math.max(8, 100 * step)}%` }))) : null,
      scored ? "· " : null, node.model ? `${node.model} · ` : null, node.finish, " · ", cell(count(node.tokens)), " tokens",
      node.pruned && node.finish !== "pruned" ? " · pruned" : "");
  }

  function draw(line, node, scored) {
    const text = (node.text ?? "").trim(), line1 = text.split("\n")[0];
    const first = line1.length > LONG ? line1.slice(0, line1.lastIndexOf(" ", LONG) >>> 0).slice(0, LONG) : line1, rest = text.slice(first.length).trim();
    const more = Boolean(rest || node.thoughts), named = node.prompt ?? (node.parent === null ? "root" : node.finish === null ? "" : "(no text)");
    const classes = ["line", node.pruned && "pruned", node.returned && "returned", node.finish === null && "growing"].filter(Boolean).join(" ");
    const head = [
      node.ordinal ? h("span", { class: "ordinal", title: `key ${node.key}` }, node.ordinal) : null,
      h("span", { class: node.parent === null ? "step root" : "step" }, first || named, more ? h("span", { class: "more" }, " …") : null),
      node.answer === undefined ? null : h("span", { class: "answer", style: `--group: ${node.color}` }, node.answer),
      node.finish === "root" ? null : figuresOf(node, scored),
      node.error ? h("span", { class: "bad reason" }, node.error) : null,
      node.returned ? h("span", { class: "hidden" }, "on the returned path") : null];
    const open = node.returned && !line.node?.returned || (line.head?.tagName === "SUMMARY" ? line.head.parentElement.open : opens(node));
    const focused = line.head !== undefined && line.head === document.activeElement;
    const whole = more || line.kids.childElementCount;
    line.head = whole ? h("summary", { class: classes }, head) : h("div", { class: `leaf ${classes}`, tabindex: -1 }, head);
    line.item.replaceChildren(whole ? h("details", { open }, line.head,
      node.thoughts ? h("p", { class: "step thoughts" }, node.thoughts) : null,
      rest ? h("p", { class: node.pruned ? "step pruned" : "step" }, rest) : null, line.kids) : line.head);
    if (focused) line.head.focus();
    line.node = node;
  }

  function add(node, scored) {
    const line = { item: h("li"), kids: h("ul") }, first = lines.values().next().value;
    const above = lines.get(node.parent ?? node.about?.at(-1)) ?? (node.prompt ? first : undefined);
    lines.set(node.key, line);
    (above?.kids ?? element).append(line.item);
    if (above && above.kids.childElementCount === 1) draw(above, above.node, scored);
    return line;
  }

  element.addEventListener("keydown", event => {  // arrow keys move between visible lines, and open or close them
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key], here = event.target.closest(".line"), details = here?.parentElement;
    if (!here) return;
    if (step) {
      const seen = [...element.querySelectorAll(".line")].filter(line => line.checkVisibility());
      seen[seen.indexOf(here) + step]?.focus();
    } else if (event.key === "ArrowRight" && details.tagName === "DETAILS") details.open = true;
    else if (event.key === "ArrowLeft" && details.open) details.open = false;
    else if (event.key === "ArrowLeft") details.parentElement.closest("details")?.querySelector(".line").focus();
    else return;
    event.preventDefault();
  });

  return {
    element,
    show(nodes) {
      const scored = nodes.some(node => known(node.score)), there = new Set(nodes.map(node => node.key));
      for (const [key, line] of lines) if (!there.has(key)) { line.item.remove(); lines.delete(key); }
      for (const node of nodes) {
        const line = lines.get(node.key) ?? add(node, scored), drawn = JSON.stringify([node, scored]);
        if (line.drawn !== drawn) draw(line, node, scored);
        line.drawn = drawn;
      }
    },
    reveal(key) {  // open the ancestors of a node, and focus it
      const head = lines.get(key)?.head;
      for (let above = head?.closest("details"); above; above = above.parentElement.closest("details")) above.open = true;
      head?.scrollIntoView({ block: "center" });
      head?.focus();
    },
    unfold(open) { for (const details of element.querySelectorAll("details")) details.open = open || details.parentElement.parentElement === element; },
  };
}

export { at, h, s, UNKNOWN, known, fixed, count, figures, cell, tree };
