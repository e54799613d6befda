/* Draws a search from left to right: one column per step, and a line from each node to its children. */
import { h, s, known, fixed } from "./parts.js";

const ROOM = 420;  // height in pixels, unless the leaves need more
const GAP = { least: 4, most: 24 };  // pixels between leaves

/* Place all nodes: x counts steps, y counts leaves. */
function layout(nodes) {
  const keys = new Map(nodes.map(node => [node.key, node])), below = new Map();
  const above = node => keys.get(node.parent) ?? keys.get(node.about?.at(-1)) ?? (node.prompt ? nodes[0] : undefined);
  const places = new Map(nodes.map(node => {
    const parent = above(node);
    if (parent) below.set(parent.key, [...(below.get(parent.key) ?? []), node]);
    return [node.key, { node, parent }];
  }));
  let leaves = 0, steps = 0;
  const put = (node, x) => {
    const place = places.get(node.key), kids = below.get(node.key) ?? [];
    for (const kid of kids) put(kid, x + 1);
    place.x = x;
    place.y = kids.length ? (places.get(kids[0].key).y + places.get(kids.at(-1).key).y) / 2 : leaves++;
    steps = Math.max(steps, x);
  };
  for (const node of nodes) if (!places.get(node.key).parent) put(node, 0);
  return { places: [...places.values()], leaves, steps, at: places };
}

/* Draws nothing for a search without steps, because its vote shows everything. */
export function map(nodes, width, pick) {
  const { places, leaves, steps, at } = layout(nodes);
  if (steps < 2) return null;
  const gap = Math.min(GAP.most, Math.max(GAP.least, ROOM / leaves)), radius = Math.min(6.5, Math.max(2.5, gap * 0.42));
  const step = Math.max(14, Math.min(190, (width - 48) / steps)), height = leaves * gap + 24;
  const px = place => 24 + place.x * step, py = place => 12 + (place.y + 0.5) * gap;
  const edges = places.filter(place => place.parent).map(place => {
    const from = at.get(place.parent.key), middle = (px(from) + px(place)) / 2, { returned, pruned, prompt } = place.node;
    const kind = returned ? "edge returned" : pruned ? "edge pruned" : prompt ? "edge aside" : "edge";
    return [returned, s("path", { class: kind, d: `M${px(from)},${py(from)}C${middle},${py(from)} ${middle},${py(place)} ${px(place)},${py(place)}` })];
  }).sort(([a], [b]) => Number(a) - Number(b)).map(([, edge]) => edge);
  const dots = places.map(place => {
    const { node } = place, score = known(node.score) ? Math.min(1, Math.max(0, node.score)) : null;
    const kind = ["dot", node.pruned && "pruned", node.returned && "returned", node.finish === null && "growing", node.finish === "error" && "failed",
      node.answer !== undefined && "ended"].filter(Boolean).join(" ");
    const words = node.parent === null ? node.prompt ?? "root" : (node.text ?? "").trim().split("\n")[0].slice(0, 160) || "…";
    return s("circle", { class: kind, cx: px(place), cy: py(place), r: node.answer !== undefined ? radius + 1 : radius, onclick: () => pick(node.key),
      style: `--group: ${node.color ?? "var(--accent)"}; --score: ${score ?? 0.35}` },
      s("title", {}, `${node.ordinal ?? ""} ${words}${score === null ? "" : `\nscore ${fixed(node.score, 2)}`}${node.pruned ? "\npruned" : ""}`));
  });
  const drawing = s("svg", { width: 48 + steps * step, height, role: "img", "aria-label": `${nodes.length} nodes in ${steps} steps; the list below has all of them` },
    edges, dots);
  return h("div", { class: "map", tabindex: 0, role: "region", "aria-label": "Map of the search" }, drawing);
}
