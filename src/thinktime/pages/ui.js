/* The page /ui: polls the gateway for changes and draws them. */
import { at, h, s, UNKNOWN, known, fixed, count, figures, cell, tree } from "./parts.js";
import { map } from "./map.js";

const PACE = { list: 1000, running: 400, hidden: 5000, failing: 2000 };  // milliseconds between polls
const UNFOLDED = 150;  // larger trees start folded
const COLORS = [3, 2, 4, 5, 7, 6].map(number => `var(--c${number})`);  // answers by number of samples; colour 1 is left out, because it is close to the accent

/* ---- polling ---- */
class NoKey extends Error {}
async function ask(path) {
  const key = sessionStorage.getItem("key");
  const reply = await fetch(`ui/${path}`, key ? { headers: { Authorization: `Bearer ${key}` } } : {});
  if (reply.status === 401) throw new NoKey();
  const data = await reply.json();
  if (!reply.ok) throw Object.assign(new Error(data.error.message), { status: reply.status });
  return data;
}

let view = null, turn = 0;  // a new turn stops the earlier loop
async function live() {
  const mine = ++turn;
  while (mine === turn) {
    let wait;
    try {
      wait = await view.refresh(() => mine === turn);
      state("");
    } catch (error) {
      if (mine !== turn) return;
      if (error instanceof NoKey) return askForKey();
      if (error.status === 404) return show(h("p", { class: "problem" }, error.message), back());
      state(error.status ? error.message : "the gateway does not answer; trying again", true);
      wait = PACE.failing;
    }
    if (wait === null) return;
    await new Promise(done => setTimeout(done, document.hidden ? PACE.hidden : wait));
  }
}
function state(text, failing = false) {
  if (text || at("state").className) at("state").replaceChildren(text);
  at("state").className = failing ? "failing" : "";
}
const show = (...elements) => at("main").replaceChildren(...elements);
const back = () => h("p", {}, h("a", { href: "#" }, "← all requests"));

function askForKey() {  // the key stays in this tab
  const given = sessionStorage.getItem("key") !== null;
  sessionStorage.removeItem("key");
  at("forget").hidden = true;
  const field = h("input", { type: "password", autocomplete: "off", required: true, id: "key" });
  show(h("form", { onsubmit: event => {
    event.preventDefault();
    sessionStorage.setItem("key", field.value.trim());
    go();
  } }, h("label", { for: "key" }, "A key of this gateway"), field, h("button", {}, "show requests"),
    h("p", { class: given ? "bad" : "note", role: "status" }, given ? "The gateway does not know this key." : "It is kept in this tab until you close it.")));
  field.focus();
}
at("forget").addEventListener("click", () => { turn++; sessionStorage.removeItem("key"); location.hash = ""; go(); });

/* ---- a request in words ---- */
const clock = at => new Date(1000 * at).toLocaleTimeString("en-GB");
const seconds = value => value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : count(Math.round(value));
const dollars = value => !known(value) ? UNKNOWN : value > 0 && value < 0.0001 ? "< $0.0001" : `$${value < 1 ? Number(value.toPrecision(2)) : fixed(value, 2)}`;
const LIMITS = { tokens: "tok", calls: "calls", seconds: "s", dollars: "usd", flops: "flops" };
const within = budget => Object.entries(budget).map(([name, limit]) => `${limit}${LIMITS[name]}`).join(",");
const options = (request, some) => [...Object.entries(some).map(([name, value]) => `${name}=${value}`),
  ...(Object.keys(request.budget).length ? [`@${within(request.budget)}`] : [])].join(" ");
const finish = request => [known(request.share) ? `${Math.round(100 * request.share)}%` : "", ["budget", "incomplete"].includes(request.finish) ? request.finish : ""]
  .filter(Boolean).join(", ");
const answer = request => request.answer === "" ? "no tool called" : request.answer;
function chip(request) {
  if (request.running) return h("span", { class: "chip running" }, "running");
  if (request.left) return h("span", { class: "chip bad" }, "client left");
  if (request.error && request.status < 400) return h("span", { class: "chip bad" }, "broke off");
  return h("span", { class: request.status < 400 ? "chip good" : "chip bad" }, String(request.status));
}

/* ---- the list ---- */
const model = request => request.model || request.called;
const unread = request => h("span", { class: "bad" }, request.error);
const COLUMNS = [  // label, class, content, and the full text for a tooltip
  ["Status", "text", chip],
  ["Began", "", request => clock(request.at)],
  ["Question", "text asked", request => request.asked, request => request.asked],
  ["Method", "text method", request => request.strategy ? [request.strategy, h("small", {}, options(request, request.chosen))] : h("small", {}, "none"),
    request => `${request.strategy ?? "no method"} ${options(request, request.options)}`],
  ["Answer", "text answer-cell", request => request.answer !== null ? [answer(request), h("small", {}, finish(request))] : request.error ? unread(request) : h("small", {}, finish(request)),
    request => request.error || request.answer],
  ["Seconds", "", request => seconds(request.seconds)],
  ["Prompt", "", request => cell(count(request.usage.prompt_tokens))],
  ["Cached", "", request => cell(count(request.usage.cached_tokens))],
  ["Generated", "", request => h("b", {}, count(request.usage.generated_tokens))],
  ["Judged", "", request => count(request.usage.scorer_tokens)],
  ["Calls", "", request => count(request.usage.model_calls)],
  ["Dollars", "money", request => cell(dollars(request.usage.dollars))],
  ["Model", "text model", request => [h("bdi", {}, model(request)), h("small", {}, request.path.replace("/v1/", "").replace("chat/completions", "chat"))], request => `${model(request)}  ${request.path}`],
  ["Key", "text key", request => request.key],
];

function list() {
  const rows = new Map(), kept = { began: null, version: 0 };
  const body = h("tbody"), cards = h("div", { class: "cards" }), spent = h("div");
  const empty = h("p", { class: "note" }, "No requests yet. New requests appear here.");
  const where = h("p", { class: "note", hidden: true });
  const filter = h("input", { type: "search", placeholder: "filter by any text  ( / )", "aria-label": "Filter requests", oninput: sift });
  filter.value = list.filter ?? "";
  const found = h("span", { class: "note", role: "status" });

  function sift() {
    list.filter = filter.value;
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let seen = 0;
    for (const row of rows.values()) {
      row.element.hidden = !words.every(word => row.text.includes(word));
      seen += !row.element.hidden;
    }
    found.textContent = words.length ? `${seen} of ${rows.size}` : "";
    empty.hidden = rows.size > 0;
  }

  function draw(request) {
    let row = rows.get(request.number);
    if (!row) {
      const link = h("th", { scope: "row" }, h("a", { href: `#${request.number}` }, `#${request.number}`));
      const cells = COLUMNS.map(([, kind]) => h("td", { class: kind }));
      const element = h("tr", { "data-number": request.number, "data-at": request.at, onclick: event => {
        if (!event.target.closest("a") && !getSelection().toString()) location.hash = request.number;
      } }, link, cells);
      row = { element, cells };
      rows.set(request.number, row);
      const older = [...body.children].find(other => Number(other.dataset.at) < request.at);
      body.insertBefore(element, older ?? null);
    }
    COLUMNS.forEach(([, kind, content, title], i) => {
      const now = h("td", { class: kind, title: title?.(request) ?? null }, content(request));
      if (now.isEqualNode(row.cells[i])) return;
      row.cells[i].replaceWith(now);
      row.cells[i] = now;
    });
    row.text = [`#${request.number}`, request.running ? "running" : request.status, request.asked, request.strategy ?? "no method", options(request, request.options), request.called,
      request.model, request.answer, request.error, request.finish, request.key, request.path].join(" ").toLowerCase();
  }

  show(cards, where, h("div", { class: "controls" }, filter, found),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Requests" }, h("table", { id: "requests", class: "one-key no-money" },
      h("caption", { class: "hidden" }, "Requests, newest first"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "#"), COLUMNS.map(([label, kind]) => h("th", { scope: "col", class: kind }, label)))), body)),
    empty, spent);
  return {
    async refresh(wanted) {
      let data = await ask(`requests?since=${kept.version}`);
      if (!wanted()) return null;
      if (kept.began !== data.began && kept.began !== null) {  // the gateway was restarted
        for (const row of rows.values()) row.element.remove();
        rows.clear();
        data = await ask("requests");
      }
      Object.assign(kept, { began: data.began, version: data.version });
      for (const request of data.requests.reverse()) draw(request);
      const still = new Set(data.numbers);
      for (const [number, row] of rows) if (!still.has(number)) { row.element.remove(); rows.delete(number); }
      const shown = at("requests").classList;  // hide columns that are the same in every row
      if (data.keys.length > 1) shown.remove("one-key");
      if (data.requests.some(request => request.usage.dollars > 0)) shown.remove("no-money");
      sift();
      where.hidden = data.silent === 0;
      where.textContent = `${data.silent} of ${data.processes} processes do not answer. Their requests are missing here.`;
      costs(data, rows.size, cards, spent);
      at("forget").hidden = sessionStorage.getItem("key") === null;
      document.title = "thinktime gateway";
      return PACE.list;
    },
  };
}

/* ---- cost ---- */
const LEFT = [["tokens", usage => usage.generated_tokens + usage.judge_tokens, count], ["calls", usage => usage.model_calls, count],
  ["dollars", usage => usage.dollars, dollars]];
function left(account) {  // what remains of a budget
  const parts = LEFT.filter(([name]) => name in account.budget).map(([name, spent, words]) => {
    const limit = account.budget[name], used = spent(account.usage);
    if (!known(used)) return h("div", {}, cell(UNKNOWN), ` of ${words(limit)} ${name}`);
    const rest = Math.max(0, limit - used), part = rest / limit;
    return h("div", {}, `${words(rest)} of ${words(limit)} ${name === "dollars" ? "" : name} left`,
      h("div", { class: "meter", "aria-hidden": true }, h("i", { class: part < 0.1 ? "low" : null, style: `width: ${100 * part}%` })));
  });
  return parts.length ? parts : h("small", {}, "no limit");
}
const COST = [
  ["Prompt", usage => cell(count(usage.prompt_tokens))], ["Cached", usage => cell(count(usage.cached_tokens))],
  ["Generated", usage => h("b", {}, count(usage.generated_tokens))], ["Judged", usage => count(usage.scorer_tokens)],
  ["Calls", usage => count(usage.model_calls)], ["Not counted", usage => count(usage.uncounted_calls)], ["Dollars", usage => cell(dollars(usage.dollars))],
];
const costTable = (id, heads, rows) => h("div", { class: "scroll" }, h("table", { id },
  h("thead", {}, h("tr", {}, heads.map((head, i) => h("th", { scope: "col", class: i ? null : "text" }, head)))),
  h("tbody", {}, rows.map(([first, ...cells]) => h("tr", {}, h("th", { scope: "row" }, first), cells.map(content => h("td", {}, content)))))));
function costs(data, remembered, cards, spent) {
  const drawn = JSON.stringify([data.keys, data.models, data.server, remembered, data.requests.filter(request => request.running).length]);
  if (spent.drawn === drawn) return;
  spent.drawn = drawn;
  const all = data.server ?? data.keys[0], { usage } = all;
  const card = (value, label, more = null) => h("div", { class: "card" }, h("b", {}, cell(value)), h("span", {}, label), more);
  cards.replaceChildren(
    card(String(data.requests.filter(request => request.running).length), "running"),
    card(String(remembered), `kept, of at most ${data.kept}`),
    card(count(usage.generated_tokens), "tokens generated"),
    card(count(known(usage.prompt_tokens) && known(usage.cached_tokens) ? usage.prompt_tokens + usage.cached_tokens : null), "tokens of prompts"),
    card(count(usage.model_calls), "calls upstream"),
    card(dollars(usage.dollars), "spent"),
    Object.keys(all.budget).some(name => name !== "seconds") ? h("div", { class: "card" }, h("span", {}, data.server ? "budget of the gateway" : "budget of this key", left(all))) : "");
  const own = [["probes", "(model probes)"], ["shadow", "(shadow)"]].filter(([part]) => data[part]);
  const probes = own.map(([part, name]) => ({ ...data[part], name }));
  spent.replaceChildren(
    h("h2", {}, "Cost by key"),
    costTable("keys", ["Key", ...COST.map(([label]) => label), "Budget"],
      [...data.keys, ...probes].map(key => [key.name, ...COST.map(([, content]) => content(key.usage)), left(key)])),
    h("h2", {}, "Cost by model"),
    costTable("models", ["Model", "Key", "Requests", ...COST.map(([label]) => label)],
      data.models.map(each => [each.model, each.key, count(each.requests), ...COST.map(([, content]) => content(each.usage))])),
    h("p", { class: "note" }, "Since the gateway started. Dollars are unknown if the model's price is."));
}

/* ---- one request ---- */
function whole(data, request) {  // nodes with their scores, flags and votes
  const nodes = [...data.nodes, ...data.growing].map(node => ({ ...node }));
  for (const node of nodes) {
    node.parent = node.parent === null ? null : nodes[node.parent].key;
    node.about = node.about?.map(index => nodes[index].key);
    if (!request.running) node.over = true;
  }
  for (const [index, score, steps] of data.judged) Object.assign(nodes[index], { score, steps });
  for (const index of data.pruned) nodes[index].pruned = true;
  for (const index of data.path) nodes[index].returned = true;
  const readable = data.votes.filter(vote => vote.answer !== null).sort((a, b) => b.samples.length - a.samples.length);
  for (const vote of data.votes) {
    vote.color = COLORS[readable.indexOf(vote)] ?? "var(--muted)";
    for (const index of vote.samples) Object.assign(nodes[index], { answer: vote.answer === null ? "no answer" : vote.answer || "no tool called", color: vote.color });
  }
  return nodes;
}

function votes(data, nodes, pick) {
  const sum = vote => vote.samples.reduce((total, index) => total + (nodes[index].score ?? 0), 0);
  const scored = data.votes.some(vote => vote.samples.some(index => known(nodes[index].score)));
  const readable = data.votes.filter(vote => vote.answer !== null), weight = vote => scored ? sum(vote) : vote.samples.length;
  const total = readable.reduce((all, vote) => all + Math.max(0, weight(vote)), 0), samples = data.votes.reduce((all, vote) => all + vote.samples.length, 0);
  const line = vote => {
    const chosen = vote.samples.some(index => nodes[index].returned), part = total && vote.answer !== null ? Math.max(0, weight(vote)) / total : 0;
    return h("li", { class: vote.answer === null ? "unread" : null, style: `--group: ${vote.color}` },
      h("div", { class: "who" }, chosen ? h("span", { class: "good", title: "the answer", style: "margin: 0" }, "✓") : null,
        h("b", {}, vote.answer === null ? "no answer could be read" : vote.answer || "no tool called"),
        h("span", {}, `${vote.samples.length} of ${samples}`, scored && vote.answer !== null ? ` · scores ${fixed(sum(vote), 2)}` : "")),
      vote.answer === null ? null : h("div", { class: "meter", title: `${Math.round(100 * part)}% of the ${scored ? "summed scores" : "votes"}` }, h("i", { style: `width: ${100 * part}%` })),
      h("div", { class: "samples" }, vote.samples.map(index => h("a", { href: `#${view.number}`, onclick: event => { event.preventDefault(); pick(nodes[index].key); } },
        nodes[index].ordinal))));
  };
  return [...readable].sort((a, b) => weight(b) - weight(a)).concat(data.votes.filter(vote => vote.answer === null)).map(line);
}

const mark = (kind, more = {}) => s("svg", { width: 14, height: 14, "aria-hidden": true }, s("circle", { class: `dot ${kind}`, cx: 7, cy: 7, r: 5, style: "--score: .8; --group: var(--c3)", ...more }));
const KEY = () => h("p", { class: "note legend" }, h("span", {}, mark(""), "fuller: a better score"), h("span", {}, mark("pruned", { style: "--score: .1" }), "pruned"),
  h("span", {}, mark("ended"), "ended: the colour of its answer"), h("span", {}, mark("growing"), "sampled now"), h("span", {}, "thick: the answer's path"));

const ACCOUNT = [["prompt tokens", "prompt_tokens"], ["cached", "cached_tokens"], ["generated", "generated_tokens"], ["judged", "scorer_tokens"],
  ["calls", "model_calls"], ["scores", "scorer_calls"], ["uncounted calls", "uncounted_calls"]];
const roles = accounts => costTable("roles", ["Role", "Phase", "Prompt", "Cached", "Generated", "Judged", "Calls", "Dollars"],
  accounts.map(({ role, phase, usage }) => [role, phase, cell(count(usage.prompt_tokens)), cell(count(usage.cached_tokens)),
    count(usage.generated_tokens), count(usage.scorer_tokens), count(usage.model_calls + usage.scorer_calls), cell(dollars(usage.dollars))]));
const pairs = list => h("dl", { class: "figures-list" }, list.map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]));

function one(number) {
  const head = h("h1"), problem = h("p", { class: "problem", role: "alert", hidden: true }), question = h("div"), drawn = h("div"), note = h("p", { class: "note" });  // of its size
  const result = h("div"), vote = h("ul", { class: "votes" }), voteHead = h("h2", { hidden: true }, "Vote"), account = h("div"), log = h("ol", { class: "log" });
  const logHead = h("h2", { hidden: true }, "Log of the strategy"), unread = h("p", { class: "problem", hidden: true });
  const size = { nodes: 0 };
  const lines = tree("Tree of nodes", node => node.returned || node.parent === null || size.nodes <= UNFOLDED && size.steps);
  const treeHead = h("div", { class: "heading" }, h("h2", {}, "Tree"), note, h("button", { type: "button", onclick: () => lines.unfold(true) }, "open all"),
    h("button", { type: "button", onclick: () => lines.unfold(false) }, "close all"));
  const treePart = h("section", { hidden: true }, treeHead, h("div", { class: "panel" }, lines.element));
  const mapPart = h("section", { hidden: true }, h("h2", {}, "Map"), drawn, KEY());
  const kept = { nodes: [] }, last = {};
  const pick = key => lines.reveal(key);
  function picture() {
    const drawing = map(size.all ?? [], Math.max(320, question.clientWidth), pick), [before] = drawn.children;
    const [x, y] = [before?.scrollLeft ?? 0, before?.scrollTop ?? 0];
    drawn.replaceChildren(drawing ?? "");
    drawing?.scrollTo(x, y);
  }
  const changed = (name, value) => last[name] !== (last[name] = JSON.stringify(value));

  function draw(request, data) {
    if (changed("head", [request.running, request.status, request.left, request.error]))
      head.replaceChildren(h("span", {}, `#${number}`), h("span", {}, request.strategy ?? "no method"), h("span", { class: "note" }, options(request, request.options)),
        h("span", { class: "note" }, model(request)), chip(request));
    document.title = `#${number} ${request.strategy ?? request.path} · thinktime gateway`;
    problem.hidden = !request.error;
    problem.textContent = request.error;
    const shown = request.answer !== null ? h("p", { class: "result" }, answer(request)) : h("p", { class: "result unknown" }, request.running ? "searching …" : "no answer");
    const share = [known(request.share) ? `${Math.round(100 * request.share)}% of the vote` : null, request.finish && `finish: ${request.finish}`].filter(Boolean).join(" · ");
    if (changed("result", [request.answer, request.running, share])) result.replaceChildren(h("h2", {}, "Answer"), shown, h("p", { class: "note" }, share));
    const { usage } = request, limit = request.budget;
    account.replaceChildren(h("h2", {}, "Account"), pairs([
      ["seconds", seconds(request.seconds) + (limit.seconds ? ` of ${limit.seconds}` : "")],
      ...ACCOUNT.filter(([, field]) => field !== "uncounted_calls" || usage[field]).map(([term, field]) => [term, [cell(count(usage[field])),
        field === "generated_tokens" && limit.tokens ? ` of ${count(limit.tokens)}` : field === "model_calls" && limit.calls ? ` of ${count(limit.calls)}` : ""]]),
      ["dollars", [cell(dollars(usage.dollars)), limit.dollars ? ` of ${dollars(limit.dollars)}` : ""]],
    ]), data?.accounts.length ? roles(data.accounts) : "", h("h2", {}, "Request"), pairs([
      ["began", clock(request.at)], ["path", request.path], ["model", request.called], ["key", request.key],
      ...(request.seed === null ? [] : [["seed", h("code", {}, String(request.seed))]]),
      ...(data ? [["trace", h("code", {}, data.trace)], ...Object.entries(data.sampling).map(([name, value]) => [name.replace("_", " "), String(value)])] : []),
    ]));
    for (const part of [mapPart, treePart, vote, voteHead, log, logHead]) part.hidden = !data;
    if (!data) {
      const why = request.strategy === null ? "A request without a method goes to the upstream and back unchanged. Its answer is not kept."
        : request.running ? "" : "No tree: the request failed before its search, or newer requests have replaced the tree.";
      question.replaceChildren(h("h2", {}, "Question"), h("div", { class: "turn" }, h("p", {}, request.asked)), h("p", { class: "note" }, why));
      return;
    }
    if (changed("prompt", data.prompt)) question.replaceChildren(h("h2", {}, "Question"), ...data.prompt.map(turn => h("div", { class: "turn", tabindex: 0 }, h("b", {}, turn.role), h("p", {}, turn.text))));
    const nodes = whole(data, request);
    if (changed("nodes", [nodes, request.running])) {
      Object.assign(size, { nodes: nodes.length, steps: nodes.some(node => node.ordinal.includes(".") || node.prompt) });
      lines.show(nodes);
      size.all = nodes;
      picture();
      vote.replaceChildren(...votes(data, nodes, pick));
    }
    mapPart.hidden = !drawn.children.length;
    voteHead.hidden = vote.hidden = !data.votes.length;
    const ended = nodes.filter(node => node.finish === "eos").length, growing = data.growing.filter(node => node.finish === null).length;
    note.textContent = [`${count(nodes.length)} nodes`, `${count(ended)} ended`, data.pruned.length ? `${count(data.pruned.length)} pruned` : "",
      growing ? `${count(growing)} ${request.running ? "sampled now" : "failed"}` : "", data.more ? `${count(data.more)} more are not shown` : ""].filter(Boolean).join(" · ");
    logHead.hidden = log.hidden = !data.log.length;
    const ordinals = new Map(nodes.map(node => [node.key, node.ordinal || "root"])), named = text => text.replace(/[0-9a-f]{32}/g, key => ordinals.get(key) ?? key);
    if (changed("log", data.log)) log.replaceChildren(...data.log.map(event => h("li", {}, h("code", {}, named(event)))));
    unread.hidden = !data.unread.length;
    unread.textContent = `Failed scores: ${data.unread.join("; ")}`;
  }

  show(back(), head, problem, h("div", { class: "columns" },
    h("div", {}, question, mapPart, treePart),
    h("aside", {}, result, voteHead, vote, unread, account, logHead, log)));
  return {
    number,
    resize: picture,
    async refresh(wanted) {
      const { request, tree: data } = await ask(`requests/${number}?known=${kept.nodes.length}`);
      if (!wanted()) return null;
      if (data) {
        kept.nodes = [...kept.nodes.slice(0, data.first), ...data.nodes];
        data.nodes = kept.nodes;
      }
      draw(request, data);
      at("forget").hidden = sessionStorage.getItem("key") === null;
      return request.running ? PACE.running : null;
    },
  };
}

/* ---- navigation ---- */
function go() {
  const number = /^#([\d-]+)$/.exec(location.hash)?.[1];
  view = number ? one(number) : list();
  scrollTo(0, 0);
  live();
}
addEventListener("hashchange", go);
addEventListener("resize", () => view.resize?.());
addEventListener("keydown", event => {
  if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && location.hash) location.hash = "";
  const filter = document.querySelector("input[type=search]");
  if (event.key === "/" && filter) { event.preventDefault(); filter.focus(); }
});
go();
