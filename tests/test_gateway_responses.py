"""OpenAI's Responses API at the gateway, by OpenAI's own client: texts, tools, JSON, events and refusals."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from gateway_server import Serving, Start
from openai import APIError, BadRequestError, OpenAI
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseOutputMessage, ResponseReasoningItem
from pydantic import BaseModel

VOTE = "majority:n=4/words"
TOOL: Any = {"type": "function", "name": "count", "description": "counts", "parameters": {"type": "object"}}


def client(gateway: Serving) -> OpenAI:
    return OpenAI(base_url=gateway.url, api_key="none", max_retries=0)


def create(gateway: Serving, **body: Any) -> Response:
    asked: dict[str, Any] = {"model": VOTE, "input": "what is 3 + 4", "max_output_tokens": 64} | body
    answer: Response = client(gateway).responses.create(**asked)
    return answer


def test_a_vote_is_a_response_with_its_usage_and_account(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    answer = create(gateway, instructions="Add.", temperature=0.7, metadata={"for": "tests"}, user="Ann")
    assert (answer.status, answer.object, answer.model) == ("completed", "response", VOTE)
    assert answer.output_text.endswith(f"answer is {(answer.model_extra or {})['thinktime']['answer']}")
    (message,) = answer.output
    assert isinstance(message, ResponseOutputMessage) and message.id.startswith("msg_")
    assert answer.usage is not None and answer.usage.output_tokens == endpoint.generated_tokens
    assert answer.usage.input_tokens == endpoint.prompt_tokens
    assert (answer.instructions, answer.temperature, answer.metadata) == ("Add.", 0.7, {"for": "tests"})
    (sent,) = endpoint.requests
    assert sent["messages"] == [{"role": "system", "content": "Add."}, {"role": "user", "content": "what is 3 + 4"}]
    assert (sent["n"], sent["temperature"], sent["max_tokens"], sent["user"]) == (4, 0.7, 64, "Ann")
    assert not {"input", "instructions", "metadata", "store", "max_output_tokens"} & set(sent)
    Response.model_validate(answer.to_dict())  # the client finds all its required fields


def test_items_become_the_messages_of_a_chat(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
    create(
        gateway,
        input=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "what is this"}, picture]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {"type": "function_call", "call_id": "c1", "name": "count", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "count", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "3"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "4"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "So 7."}]},
            {"role": "user", "content": "sure?"},
        ],
        tools=[TOOL],
        tool_choice={"type": "function", "name": "count"},
        parallel_tool_calls=False,
        reasoning={"effort": "low"},
        text={"verbosity": "low"},
        extra_body={"top_k": 5},
    )
    sent = endpoint.requests[0]
    call = {"type": "function", "function": {"name": "count", "arguments": "{}"}}
    url = {"url": "data:image/png;base64,AA==", "detail": "low"}
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": url}],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Hm.",
            "tool_calls": [{"id": "c1", **call}, {"id": "c2", **call}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "tool", "tool_call_id": "c2", "content": "4"},
        {"role": "assistant", "content": "So 7."},
        {"role": "user", "content": "sure?"},
    ]
    function = {name: value for name, value in TOOL.items() if name != "type"}
    assert sent["tools"] == [{"type": "function", "function": function}]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "count"}}
    assert (sent["parallel_tool_calls"], sent["reasoning_effort"], sent["verbosity"]) == (False, "low", "low")
    assert sent["top_k"] == 5


def test_tool_calls_are_items_and_can_be_sent_back_unchanged(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    answer = create(gateway, tools=[TOOL])
    (call,) = answer.output
    assert isinstance(call, ResponseFunctionToolCall) and call.name == "count" and call.status == "completed"
    assert json.loads(call.arguments)["unit"] == "apples" and call.call_id.startswith("call_")
    said: list[Any] = [{"role": "user", "content": "what is 3 + 4"}, call.to_dict()]
    create(gateway, input=[*said, {"type": "function_call_output", "call_id": call.call_id, "output": "7"}])
    messages = endpoint.requests[-1]["messages"]
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"] == call.call_id


class SumReply(BaseModel):
    sum: int


def test_json_is_parsed_into_the_clients_own_type(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    answer = client(gateway).responses.parse(model=VOTE, input="what is 3 + 4", text_format=SumReply)
    assert isinstance(answer.output_parsed, SumReply) and 1 <= answer.output_parsed.sum <= 9
    assert endpoint.requests[0]["response_format"]["json_schema"]["schema"]["properties"].keys() == {"sum"}


def test_an_answer_that_was_cut_is_incomplete(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    answer = create(gateway, model="single/words", max_output_tokens=2)
    assert answer.status == "incomplete" and answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens" and len(answer.output_text.split()) == 2


def test_log_probabilities_are_returned_if_include_names_them(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    answer = create(gateway, model="single/words", include=["message.output_text.logprobs"])
    (message,) = answer.output
    assert isinstance(message, ResponseOutputMessage) and answer.usage is not None
    assert len(getattr(message.content[0], "logprobs", ())) == answer.usage.output_tokens > 3


def plain(value: Any) -> Any:
    """An item without the fields that the client's streams add."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if not isinstance(value, dict):
        return plain(value.to_dict()) if hasattr(value, "to_dict") else value
    return {name: plain(each) for name, each in value.items() if name not in ("parsed", "parsed_arguments")}


@pytest.mark.parametrize("model", [VOTE, "single/words"])
@pytest.mark.parametrize("tools", [[], [TOOL]])
def test_the_events_of_a_stream_add_up_to_the_response(start_gateway: Start, model: str, tools: list[Any]) -> None:
    _, gateway = start_gateway(reasons=True)
    ask: dict[str, Any] = {"model": model, "input": "what is 3 + 4", "extra_body": {"seed": 3}, "tools": tools}
    with client(gateway).responses.stream(**ask) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    whole = client(gateway).responses.create(**ask)
    assert [plain(item) for item in final.output] == [plain(item) for item in whole.output]
    thought, said = final.output
    assert isinstance(thought, ResponseReasoningItem) and thought.content and thought.content[0].text == "Let me see."
    if tools:
        parts = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
        assert isinstance(said, ResponseFunctionToolCall) and "".join(parts) == said.arguments
    else:
        texts = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(texts) == final.output_text and (len(texts) > 3) == (model == "single/words")
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 2


def test_a_search_sends_its_progress_as_comments_in_the_stream(start_gateway: Start) -> None:
    _, gateway = start_gateway(n="ignored")
    body = {"model": VOTE, "input": "what is 3 + 4", "stream": True}
    with client(gateway).responses.with_streaming_response.create(**body) as raw:  # type: ignore[call-overload]
        lines = list(raw.iter_lines())
    assert sum(line.startswith(": sample ") for line in lines) == 4
    assert sum(line.startswith("event: response.output_text.delta") for line in lines) == 1


def test_an_error_in_a_stream_is_raised_by_the_client(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    endpoint.faults.append("broken")
    with pytest.raises(APIError), client(gateway).responses.stream(model="single/words", input="hi") as stream:
        list(stream)


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("background", {"background": True}),
        ("conversation", {"conversation": "conv_1"}),
        ("max_tool_calls", {"max_tool_calls": 3}),
        ("previous_response_id", {"previous_response_id": "resp_1"}),
        ("prompt", {"prompt": {"id": "pmpt_1"}}),
        ("store", {"store": True}),
        ("truncation", {"truncation": "auto"}),
        ("stream_options.include_obfuscation", {"stream": True, "stream_options": {"include_obfuscation": True}}),
        ("tools[0].type", {"tools": [{"type": "web_search"}]}),
        ("tool_choice", {"tool_choice": {"type": "web_search"}}),
        ("include", {"include": ["file_search_call.results"]}),
        ("reasoning.summary", {"reasoning": {"summary": "auto"}}),
        ("text.format.type", {"text": {"format": {"type": "grammar"}}}),
        ("input", {"input": []}),
        ("input", {"input": ""}),
        ("input[0]", {"input": ["hi"]}),
        ("input[0].type", {"input": [{"type": "item_reference", "id": "msg_1"}]}),
        ("input[0].role", {"input": [{"role": "judge", "content": "hi"}]}),
        ("input[0].content", {"input": [{"role": "user", "content": 3}]}),
        (
            "input[0].content[0].file",
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        ),
        ("input[0].content[0].type", {"input": [{"role": "user", "content": [{"type": "input_video"}]}]}),
        ("max_output_tokens", {"max_output_tokens": 0}),
        ("temperature", {"temperature": "hot"}),
        ("reasoning", {"reasoning": "low"}),
        ("tools", {"tools": TOOL}),
    ],
)
def test_unsupported_fields_are_refused_by_name(start_gateway: Start, field: str, body: dict[str, Any]) -> None:
    endpoint, gateway = start_gateway()
    with pytest.raises(BadRequestError) as refused:
        create(gateway, **body)
    assert refused.value.param == field and endpoint.requests == []


def test_requests_with_and_without_a_method_work_on_an_upstream_without_this_call(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    create(gateway, model="words", extra_body={"thinktime": {"strategy": "majority", "n": 3}})
    assert endpoint.requests[-1]["n"] == 3
    answer = create(gateway, model="words")
    assert answer.output_text and (answer.model_extra or {})["thinktime"]["strategy"] == "single"


class Native(BaseHTTPRequestHandler):
    """An upstream that has this call; it answers with the body of the request."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        usage = {
            "input_tokens": 5,
            "output_tokens": 7,
            "total_tokens": 12,
            "input_tokens_details": {"cached_tokens": 2},
        }
        answer = {"object": "response", "output": [], "received": body, "usage": usage}
        status = 200 if body.get("model") else 400
        data, kind = json.dumps(answer).encode(), "application/json"
        if body.get("stream"):
            last = json.dumps({"type": "response.completed", "response": answer})
            data, kind = f"event: response.completed\ndata: {last}\n\n".encode(), "text/event-stream"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def native() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Native)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("stream", [False, True])
def test_without_a_method_the_upstreams_own_call_answers_and_is_charged(native: str, stream: bool) -> None:
    with Serving(native) as gateway:
        body = {"model": "any", "input": "hi", "store": True, "previous_response_id": "resp_1", "stream": stream}
        answer = client(gateway).responses.create(**body)  # type: ignore[call-overload]
        received = list(answer)[-1].response if stream else answer
        assert received.received == body
        spent = gateway.gateway.auth.ledger.spent
        assert (spent.prompt_tokens, spent.cached_tokens, spent.generated_tokens) == (3, 2, 7)
