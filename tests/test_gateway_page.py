"""The page `/ui`: its data, which clients may see it, and how a browser draws it."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import Browser
from fake_endpoint import Running
from gateway_server import MESSAGES, PLAIN, VOTE, Serving, Start
from waiting import PATIENCE, eventually

from thinktime.core.protocols import Scorer
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Budget, Usage
from thinktime.gateway import history, trees
from thinktime.gateway.config import Key, digest
from thinktime.gateway.page import FILES
from thinktime.gateway.trees import SearchView
from thinktime.models.remote.prices import Price
from thinktime.pages import page
from thinktime.scorers.prm import ProcessReward
from thinktime.testing.doubles import ANSWERS, WordGenerator

ANN, BOB, EVE = ("a key of ann's, which is long", "a key of bob's, which is long", "a key that sees all of them")
KEYS = (Key("ann", digest(ANN), Budget(tokens=5000)), Key("bob", digest(BOB)), Key("eve", digest(EVE), sees_all=True))
HOSTILE = (
    '</script><script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'"> answer is <b>7</b>'
)
BEAM: dict[str, Any] = {
    "model": "beam_search:n=8,width=4/words",
    "prompt": "what is 3 + 4",
    "max_tokens": 64,
    "seed": 1,
}


class Gate:
    """A scorer that blocks before one of its scores until the test opens it."""

    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD})
    name = "gate"

    def __init__(self, scorer: Scorer | None = None, at: int = 0) -> None:
        self.scorer, self.at, self.open = scorer, at, threading.Event()
        self.calls = 0

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        return self.scorer.worst_case(problem, node, known) if self.scorer else Usage(scorer_calls=1, scorer_tokens=1)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        self.calls += 1
        while self.calls == self.at and not self.open.is_set():
            await asyncio.sleep(0.01)
        if self.scorer:
            return await self.scorer.score(problem, nodes, known)
        cost = Usage(scorer_calls=1, scorer_tokens=1)
        return [Score(Random(node.key).random(), cost, (0.25, 0.5)) for node in nodes]


def fetched(gateway: Serving, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    address = urlsplit(gateway.url)
    client = http.client.HTTPConnection(str(address.hostname), address.port, timeout=PATIENCE)
    client.request("GET", path, headers=headers)
    reply = client.getresponse()
    received = reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read().decode()
    client.close()
    return received


def shown(gateway: Serving, path: str, key: str | None = None) -> Any:
    """The data of the page."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    status, _, received = fetched(gateway, f"/ui/{path}", **headers)
    assert status == 200, received
    return json.loads(received)


class Asking:
    """A running request."""

    def __init__(self, gateway: Serving, body: dict[str, Any], path: str = "chat/completions") -> None:
        self.answer: dict[str, Any] = {}
        self._url, self._body = f"{gateway.url}/{path}", json.dumps(body).encode()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        request = urllib.request.Request(self._url, self._body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            self.answer = json.loads(reply.read())

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def wait(self) -> dict[str, Any]:
        self._thread.join()
        return self.answer


# the data of the page


def test_each_request_is_shown_with_its_method_its_cost_and_its_end(start_gateway: Start) -> None:
    settings = {"price": Price.parse("1/2"), "budget": Budget(tokens=100_000)}
    endpoint, gateway = start_gateway(settings, probed=False, n="ignored")
    gateway.ask({**PLAIN, "model": "single/words"})
    vote = gateway.ask({**VOTE, "model": "majority:n=4@2000tok/words", "seed": 5})[1]
    gateway.ask(PLAIN)
    gateway.ask({**PLAIN, "model": "majorty:n=3/words"})
    received = shown(gateway, "requests")
    wrong, plain, voted, first = received["requests"]
    assert [row["number"] for row in received["requests"]] == [4, 3, 2, 1] and first["strategy"] == "single"
    account = vote["thinktime"]
    assert voted["usage"] == account["account"] and voted["usage"]["dollars"] > 0
    assert (voted["answer"], voted["share"], voted["finish"]) == (account["answer"], account["share"], "done")
    assert (voted["strategy"], voted["options"], voted["budget"]) == ("majority", {"n": 4}, {"tokens": 2000})
    assert (voted["status"], voted["running"], voted["seed"]) == (200, False, 5) and voted["seconds"] > 0
    assert (voted["path"], voted["model"], voted["key"]) == ("/v1/chat/completions", "words", "anybody")
    assert (plain["strategy"], plain["asked"], plain["usage"]["model_calls"]) == (None, "what is 3 + 4", 1)
    assert plain["usage"]["generated_tokens"] > 0 and shown(gateway, "requests/3")["tree"] is None
    assert (wrong["status"], wrong["called"], wrong["model"]) == (400, "majorty:n=3/words", "")
    assert "did you mean 'majority'?" in wrong["error"] and wrong["usage"]["model_calls"] == 0
    (model,) = received["models"]
    assert (model["model"], model["requests"], model["usage"]["generated_tokens"]) == ("words", 3, generated(received))
    server = received["server"]
    assert server["budget"] == {"tokens": 100_000} and server["usage"]["model_calls"] >= 6
    assert received["keys"][0]["usage"]["generated_tokens"] == endpoint.generated_tokens > generated(received)


def generated(received: dict[str, Any]) -> int:
    return sum(row["usage"]["generated_tokens"] for row in received["requests"])


def test_only_changed_requests_are_sent_again(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    first = shown(gateway, "requests")
    gateway.ask(VOTE)
    second = shown(gateway, f"requests?since={first['version']}")
    assert [row["number"] for row in second["requests"]] == [2]
    assert shown(gateway, f"requests?since={second['version']}")["requests"] == []


def test_a_tree_has_scores_prunings_the_answers_path_and_the_vote(start_gateway: Start) -> None:
    _, gateway = start_gateway({"scorer": Gate()})
    answer = gateway.ask(BEAM, "completions")[1]
    tree = shown(gateway, "requests/2")["tree"]
    nodes = tree["nodes"]
    assert nodes[0]["finish"] == "root" and {node["parent"] for node in nodes[1:9]} == {0}
    assert [node["ordinal"] for node in nodes[1:9]] == [str(number) for number in range(8)]
    assert len(nodes) == 1 + answer["thinktime"]["account"]["model_calls"]
    assert {index for index, _, _ in tree["judged"]} | {0} == set(range(len(nodes)))
    assert all(0 <= score <= 1 and steps == [0.25, 0.5] for _, score, steps in tree["judged"])
    parents = {node["parent"] for node in nodes}
    assert tree["pruned"] and not parents & set(tree["pruned"])
    path = tree["path"]
    assert [nodes[index]["parent"] for index in path] == [None, *path[:-1]]
    assert "".join(nodes[index]["text"] for index in path) == answer["choices"][0]["text"]
    ended = [index for index, node in enumerate(nodes) if node["finish"] == "eos"]
    assert sorted(index for vote in tree["votes"] for index in vote["samples"]) == ended
    won = next(vote for vote in tree["votes"] if path[-1] in vote["samples"])
    assert won["answer"] == answer["thinktime"]["answer"]
    assert (tree["trace"], tree["more"]) == (answer["thinktime"]["trace"], 0)
    assert tree["prompt"] == [{"role": "prompt", "text": "what is 3 + 4"}]


def test_nodes_are_sent_while_the_search_runs_and_only_once(start_gateway: Start) -> None:
    gate = Gate(at=2)
    _, gateway = start_gateway({"scorer": gate})
    asking = Asking(gateway, BEAM, "completions")
    eventually(lambda: gate.calls == 2)
    received = shown(gateway, "requests/2")
    request, tree = received["request"], received["tree"]
    assert request["running"] and request["usage"]["generated_tokens"] > 0 and asking.running
    assert len(tree["nodes"]) > 9 and tree["path"] == [] and tree["pruned"]
    known = len(tree["nodes"])
    again = shown(gateway, f"requests/2?known={known - 2}")["tree"]
    assert (again["first"], again["nodes"]) == (known - 2, tree["nodes"][-2:])
    assert again["judged"] == tree["judged"] and again["pruned"] == tree["pruned"]
    gate.open.set()
    asking.wait()
    whole = eventually(lambda: not shown(gateway, "requests/2")["request"]["running"] and shown(gateway, "requests/2"))
    assert whole["tree"]["nodes"][:known] == tree["nodes"] and whole["tree"]["path"]


def test_samples_of_one_vote_are_sent_one_by_one_and_a_failed_one_is_none(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.faults.extend(["", "", "never", ""])
    address = urlsplit(gateway.url)
    client = http.client.HTTPConnection(str(address.hostname), address.port)
    body = json.dumps({**VOTE, "model": "majority:n=4/words"})
    client.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})

    def three_came() -> Any:
        if len(shown(gateway, "requests")["requests"]) < 2:
            return None
        tree = shown(gateway, "requests/2")["tree"]
        return (
            tree and sorted(str(node["finish"]) for node in tree["growing"]) == ["None", "eos", "eos", "eos"] and tree
        )

    tree = eventually(three_came)
    assert len(tree["nodes"]) == 1 and sum(len(vote["samples"]) for vote in tree["votes"]) == 3
    client.close()
    ended = eventually(lambda: not (received := shown(gateway, "requests/2"))["request"]["running"] and received)
    assert ended["request"]["left"] and len(ended["tree"]["growing"]) == 4
    assert ended["request"]["usage"]["uncounted_calls"] > 0


def test_a_failed_sample_shows_its_reason_and_no_address(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.faults.extend(["garbage"])
    assert gateway.ask({**VOTE, "model": "majority:n=3/words"})[0] == 200
    nodes = shown(gateway, "requests/2")["tree"]["nodes"]
    (failed,) = [node for node in nodes if node["finish"] == "error"]
    assert "that is not a JSON object" in failed["error"]
    assert str(endpoint.port) not in json.dumps(nodes)


def test_thoughts_tools_and_messages_are_shown(start_gateway: Start) -> None:
    _, gateway = start_gateway(n="ignored", reasons=True)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "what is 3 + 4"}, picture]},
    ]
    tools = [{"type": "function", "function": {"name": "count", "parameters": {}}}]
    assert gateway.ask({**VOTE, "messages": messages, "tools": tools})[0] == 200
    tree = shown(gateway, "requests/2")["tree"]
    assert [turn["text"] for turn in tree["prompt"]] == ["Be brief.", "what is 3 + 4\n[image_url]"]
    sample = next(node for node in tree["nodes"] if "count(" in node["text"])
    assert sample["thoughts"] == "Let me see." and "unit" in sample["text"]


def test_questions_about_samples_are_shown_beside_those_samples(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    assert gateway.ask({**PLAIN, "model": "self_refine/words"})[0] == 200
    nodes = shown(gateway, "requests/2")["tree"]["nodes"]
    asked = [node for node in nodes if "prompt" in node]
    assert asked and all(nodes[index]["finish"] == "eos" for node in asked for index in node["about"])


def test_a_parameter_that_is_no_whole_number_is_refused(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    for path in ("requests?since=x", "requests?since=-1", "requests/1?known=1.5"):
        status, _, received = fetched(gateway, f"/ui/{path}")
        assert status == 400 and "whole number" in json.loads(received)["error"]["message"]
    assert fetched(gateway, "/ui/requests/77")[0] == 404 and fetched(gateway, "/ui/other.js")[0] == 404


# memory limits


def test_the_oldest_requests_and_trees_are_dropped(start_gateway: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    _, gateway = start_gateway()
    gateway.ask(VOTE)
    (client,), kept = gateway.gateway.auth.clients, gateway.gateway.history
    size = len(eventually(lambda: (entry := kept.find(client, 2)) and entry.tree))
    monkeypatch.setattr(history, "REQUESTS", 4)
    monkeypatch.setattr(history, "MEMORY", 2 * size + size // 2)
    for _ in range(6):
        gateway.ask(VOTE)
    rows = eventually(
        lambda: (received := shown(gateway, "requests"))["requests"][0]["number"] == 8 and received["requests"]
    )
    assert [row["number"] for row in rows] == [8, 7, 6, 5]
    assert [shown(gateway, f"requests/{number}")["tree"] is not None for number in (8, 7, 6, 5)] == [1, 1, 0, 0]
    assert kept._held == sum(len(entry.tree) for entry in kept._kept.values()) <= history.MEMORY
    assert shown(gateway, "requests")["models"][0]["requests"] == 8


def test_long_texts_and_large_trees_are_cut_and_the_answer_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "NODES", 10)

    async def grown() -> tuple[Search, Answer]:
        search = Search(Problem("p", "count"), WordGenerator(), answers=ANSWERS)
        steps = await search.extend([search.root], 20, until="step")
        last = (await search.extend([steps[-1]], 8))[-1]
        return search, search.finish(search.candidates([last])[0])

    search, answer = asyncio.run(grown())
    received = SearchView(search, ("http://upstream",)).shown(answer=answer)
    assert len(received["nodes"]) == 12 and received["more"] == len(search.trace) - 12
    assert [received["nodes"][index]["ordinal"] for index in received["path"]] == ["", "19", "19.7"]
    assert trees.clipped("x" * 12, 10) == "x" * 10 + "… (2 more characters)"


def test_models_beyond_the_limit_are_summed_together(start_gateway: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MODELS", 1)
    _, gateway = start_gateway()
    for _ in range(2):
        gateway.ask({**VOTE, "model": "single/other-words"})
    models = eventually(lambda: len(found := shown(gateway, "requests")["models"]) == 2 and found)
    assert [(each["model"], each["requests"]) for each in models] == [("words", 1), ("(others)", 2)]


# access


def test_a_key_sees_its_own_requests_unless_it_may_see_all(start_gateway: Start) -> None:
    _, gateway = start_gateway({"keys": KEYS}, probed=False)
    for key in (ANN, BOB, BOB):
        assert gateway.ask({**PLAIN, "model": "single/words"}, Authorization=f"Bearer {key}")[0] == 200
    ann, bob, eve = (shown(gateway, "requests", key) for key in (ANN, BOB, EVE))
    assert [row["number"] for row in ann["requests"]] == [1] and [row["number"] for row in bob["requests"]] == [3, 2]
    assert [row["key"] for row in eve["requests"]] == ["bob", "bob", "ann"]
    assert [[key["name"] for key in received["keys"]] for received in (ann, bob, eve)] == [
        ["ann"],
        ["bob"],
        ["ann", "bob", "eve"],
    ]
    assert [[each["key"] for each in received["models"]] for received in (ann, eve)] == [["ann"], ["ann", "bob"]]
    assert "server" not in ann and "server" in eve and ann["keys"][0]["budget"] == {"tokens": 5000}
    counted = [fetched(gateway, "/metrics", Authorization=f"Bearer {key}")[2] for key in (ANN, EVE)]
    assert ["bob" in text for text in counted] == [False, True] and all("ann" in text for text in counted)
    assert shown(gateway, "requests/2", BOB)["tree"] and shown(gateway, "requests/2", EVE)["tree"]
    status, _, others = fetched(gateway, "/ui/requests/2", Authorization=f"Bearer {ANN}")
    assert (status, json.loads(others)["error"]["message"]) == (404, "request 2 is not kept")


def test_without_a_key_only_the_page_itself_is_sent(start_gateway: Start) -> None:
    _, gateway = start_gateway({"keys": KEYS}, probed=False)
    for path in ("requests", "requests/1"):
        for headers in ({}, {"Authorization": "Bearer a wrong key, long enough"}):
            assert fetched(gateway, f"/ui/{path}", **headers)[0] == 401
    for path in ("", *(f"/{name}" for name in FILES)):
        assert fetched(gateway, f"/ui{path}")[0] == 200


def test_without_keys_the_page_answers_only_this_machine(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    for path in ("/ui", "/ui/ui.js", "/ui/requests", "/ui/requests/1"):
        assert fetched(gateway, path)[0] == 200
        assert fetched(gateway, path, Host="evil.example:8080")[0] == 403


def test_everything_is_sent_with_a_policy_that_runs_no_other_script(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    for path in ("/ui", "/ui/ui.js", "/ui/look.css", "/ui/requests", "/ui/requests/1", "/ui/requests/99", "/ui/none"):
        _, headers, _ = fetched(gateway, path)
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';") and "unsafe" not in policy
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
    assert fetched(gateway, "/ui")[1]["content-type"] == "text/html; charset=utf-8"
    assert fetched(gateway, "/ui/ui.js")[1]["content-type"] == "text/javascript; charset=utf-8"


def test_the_files_refer_to_nothing_outside_and_write_no_html() -> None:
    for name in ("ui.html", *FILES):
        text = page(name)
        assert text.replace("http://www.w3.org/2000/svg", "").count("://") == 0
        assert not any(
            word in text for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
        )


def test_no_key_and_no_address_is_shown(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway({"keys": KEYS, "upstream_key": "sk-of-the-upstream"}, probed=False)
    for fault in ("", "500", "garbage", "cut"):
        endpoint.faults.extend([fault] * 8)
        for model in ("words", "majority:n=2/words"):
            with suppress(ValueError):  # a malformed body is forwarded unchanged
                gateway.ask({**PLAIN, "model": model}, Authorization=f"Bearer {EVE}")
    received = [json.dumps(shown(gateway, path, EVE)) for path in ("requests", *(f"requests/{n}" for n in range(1, 9)))]
    secrets = (EVE, digest(EVE), "sk-of-the-upstream", f":{endpoint.port}")
    assert not any(secret in text for secret in secrets for text in received)


# in a browser


def address(gateway: Serving, number: int | None = None) -> str:
    return gateway.url.removesuffix("/v1") + "/ui" + (f"#{number}" if number else "")


def test_the_list_is_live_filtered_and_walked_by_keyboard(start_gateway: Start, tab: Browser) -> None:
    _, gateway = start_gateway()
    tab.open(address(gateway))
    tab.wait(lambda: tab.count("#requests tbody tr") == 1)
    gateway.ask(VOTE)
    gateway.ask(PLAIN)
    tab.wait(lambda: tab.count("#requests tbody tr") == 3 and tab.count(".chip.running") == 0)
    first, second, _ = tab.read("[...document.querySelectorAll('#requests tbody tr')].map(row => row.innerText)")
    assert "#3" in first and "none" in first and "#2" in second and "majority" in second and "what is 3 + 4" in second
    tab.press("/")
    tab.type("majority n=8")
    tab.wait(lambda: tab.count("#requests tbody tr:not([hidden])") == 1)
    assert "1 of 3" in tab.text
    tab.read("document.querySelector('#requests tbody tr:not([hidden]) a').focus()")
    tab.press("Enter")
    tab.wait(lambda: tab.count(".tree .line") == 9)
    assert tab.read("location.hash") == "#2" and "Vote" in tab.text
    tab.read("document.querySelector('.tree .line').focus()")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        tab.press(key)
    assert "1" in tab.read("document.activeElement.querySelector('.ordinal').textContent")
    assert tab.read("document.activeElement.parentElement.open") is True
    tab.press("ArrowLeft")
    assert tab.read("document.activeElement.parentElement.open") is False
    tab.press("Escape")
    tab.wait(lambda: tab.count("#requests tbody tr") == 3)
    assert tab.count("#requests tbody tr:not([hidden])") == 1  # the filter is kept


def test_the_text_of_a_model_is_never_markup(start_gateway: Start, tab: Browser) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.says = [HOSTILE]
    messages = [{"role": "<i>user</i>", "content": HOSTILE}, *MESSAGES, {"role": "user", "content": HOSTILE}]
    gateway.ask({**VOTE, "messages": messages, "user": HOSTILE})
    gateway.ask({**PLAIN, "model": f"majority:n=2/{HOSTILE}"})
    for number in (None, 2, 3):
        tab.open(address(gateway, number))
        tab.wait(lambda: '</script><script>document.title="owned"' in tab.text and tab.count(".chip.running") == 0)
        assert tab.count("main img") == tab.count("main script") == tab.count(".turn i") == 0
        assert tab.count("main b b") == 0 and tab.read("document.title").startswith(("thinktime", "#"))


def test_a_key_is_asked_for_and_stays_in_the_tab(start_gateway: Start, browser: Browser) -> None:
    _, gateway = start_gateway({"keys": KEYS}, probed=False)
    gateway.ask({**PLAIN, "model": "single/words"}, Authorization=f"Bearer {ANN}")
    gateway.ask({**PLAIN, "model": "single/words"}, Authorization=f"Bearer {BOB}")
    browser.open(address(gateway))
    browser.wait(lambda: "A key of this gateway" in browser.text)
    assert browser.count("#requests") == 0
    browser.type("a wrong key, long enough")
    browser.press("Enter")
    browser.wait(lambda: "does not know this key" in browser.text)
    browser.type(BOB)
    browser.press("Enter")
    browser.wait(lambda: browser.count("#requests tbody tr") == 1)
    assert "#2" in browser.text and "bob" in browser.text and "ann" not in browser.text
    browser.open(address(gateway, 2))
    browser.wait(lambda: browser.count(".tree .line") == 2)
    assert browser.read("document.cookie + JSON.stringify(localStorage) + location.href").count(BOB) == 0
    browser.click("#forget")
    browser.wait(lambda: "A key of this gateway" in browser.text)
    browser.open("about:blank")


def test_the_page_waits_for_a_gateway_that_has_stopped(tab: Browser) -> None:
    with Running() as endpoint, Serving(endpoint.url) as gateway:
        tab.open(address(gateway))
        tab.wait(lambda: "No requests yet" in tab.text)
    tab.wait(lambda: "does not answer; trying again" in tab.text)
    tab.complaints.clear()  # the browser logs that it could not connect


def test_a_tree_of_a_thousand_nodes_is_folded_and_opens(start_gateway: Start, tab: Browser) -> None:
    _, gateway = start_gateway(probed=False)

    async def grown() -> tuple[Search, Answer]:
        search = Search(Problem("p", "count"), WordGenerator(), answers=ANSWERS)
        steps = [search.root]
        while len(search.trace) <= 1000:
            steps = await search.extend(steps, 3, until="step")
        return search, search.finish(None)

    search, answer = asyncio.run(grown())
    kept, (client,) = gateway.gateway.history, gateway.gateway.auth.clients
    entry = kept.begin(client, "/v1/completions", {"model": "words", "prompt": "count"})
    entry.show(search, ("upstream",))
    entry.answer = answer
    kept.end(entry, 200)
    tab.open(address(gateway, 1))
    tab.wait(lambda: tab.count(".tree .line") == len(search.trace) > 1000)
    seen = "[...document.querySelectorAll('.tree .line')].filter(line => line.checkVisibility()).length"
    assert tab.count(".map circle") == len(search.trace) and 3 < tab.read(seen) < 100
    tab.read("[...document.querySelectorAll('button')].find(button => button.textContent === 'open all').click()")
    assert tab.read(seen) == len(search.trace)
    tab.read("[...document.querySelectorAll('button')].find(button => button.textContent === 'close all').click()")
    tab.read("document.querySelector('.votes .samples a').click()")
    assert tab.read("document.activeElement.querySelector('.answer') !== null") is True
    assert tab.read("document.activeElement.checkVisibility()") is True


def test_a_beam_search_of_the_shipped_models_is_seen_as_it_grows(
    llama_cpp: str, reward: ProcessReward, questions: tuple[str, ...], tab: Browser
) -> None:
    gate = Gate(reward, at=3)
    with Serving(llama_cpp, gate) as gateway:
        model = gateway.ask(b"", "models")[1]["data"][0]["id"]
        question = {"messages": [{"role": "user", "content": questions[7]}], "max_tokens": 150, "seed": 3}
        body = {
            "model": f"beam_search:n=4,width=2/{model}",
            "temperature": 0.1,  # every step is the likeliest one for any seed
            "top_p": 0.99999,
            "min_p": 0,
            **question,
        }
        asking = Asking(gateway, body)
        tab.open(address(gateway, 1))
        tab.wait(lambda: tab.count(".tree .line") >= 13 and "score" in tab.text)
        tab.wait(lambda: tab.count(".chip.running") == 1)  # the list of requests has its own updates
        assert asking.running and "searching" in tab.text
        assert tab.count(".tree .line.pruned") >= 4 and tab.count(".edge.pruned") >= 4 and tab.count(".returned") == 0
        before = tab.count(".tree .line")
        gate.open.set()
        answer = asking.wait()["thinktime"]
        tab.wait(lambda: tab.count(".tree .line.returned") > 0)
        assert tab.count(".tree .line") == answer["account"]["model_calls"] + 1 > before
        assert tab.read("document.querySelector('.result').textContent") == answer["answer"]
        assert tab.count(".edge.returned") == tab.count(".tree .line.returned") - 1
        assert tab.count(".votes .samples a") == answer["samples"] and answer["trace"] in tab.text
        tab.wait(lambda: tab.count(".chip.running") == 0 and tab.count(".chip.good") == 1)
