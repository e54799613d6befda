"""Anthropic's Messages API at the gateway, by Anthropic's own client: texts, tools, thoughts, events and refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic import Anthropic, APIError, APIStatusError, AuthenticationError, BadRequestError
from anthropic.types import Message, TextBlock, ThinkingBlock, ToolUseBlock
from gateway_server import KEY, Serving, Start, keyed

from thinktime.core.usage import Budget

VOTE = "majority:n=4/words"
ASKED: list[Any] = [{"role": "user", "content": "what is 3 + 4"}]
TOOL: Any = {"name": "count", "description": "counts", "input_schema": {"type": "object"}}


def client(gateway: Serving, key: str = "none") -> Anthropic:
    return Anthropic(base_url=gateway.url.removesuffix("/v1"), api_key=key, max_retries=0)


def create(gateway: Serving, **body: Any) -> Message:
    asked: dict[str, Any] = {"model": VOTE, "messages": ASKED, "max_tokens": 64} | body
    answer: Message = client(gateway).messages.create(**asked)
    return answer


def account(answer: Message) -> dict[str, Any]:
    found: dict[str, Any] = (answer.model_extra or {})["thinktime"]
    return found


def test_a_vote_is_a_message_with_its_usage_and_account(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    answer = create(gateway, system="Add.", metadata={"user_id": "Ann"}, extra_body={"temperature": 0.7})
    (block,) = answer.content
    assert isinstance(block, TextBlock) and block.text.endswith(f"answer is {account(answer)['answer']}")
    assert (answer.stop_reason, answer.stop_sequence, answer.model, answer.role) == (
        "end_turn",
        None,
        VOTE,
        "assistant",
    )
    assert answer.id.startswith("msg_") and account(answer)["strategy"] == "majority"
    assert answer.usage.output_tokens == endpoint.generated_tokens
    assert answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) == endpoint.prompt_tokens
    (sent,) = endpoint.requests
    assert sent["messages"] == [{"role": "system", "content": "Add."}, {"role": "user", "content": "what is 3 + 4"}]
    assert (sent["n"], sent["temperature"], sent["max_tokens"], sent["user"]) == (4, 0.7, 64, "Ann")
    assert not {"system", "metadata", "stop_sequences", "thinking"} & set(sent)


def test_content_blocks_become_the_messages_of_a_chat(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
    linked = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    create(
        gateway,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "what is this"}, picture, linked]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": ""},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "tool_use", "id": "c1", "name": "count", "input": {"unit": "pens"}},
                    {"type": "tool_use", "id": "c2", "name": "count", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "3"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "c2",
                        "content": [{"type": "text", "text": "no"}],
                        "is_error": True,
                    },
                    {"type": "text", "text": "so?"},
                ],
            },
        ],
        tools=[TOOL],
        tool_choice={"type": "tool", "name": "count", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        output_config={"effort": "max"},
        extra_body={"top_k": 5},
    )
    sent = endpoint.requests[0]
    call = {"id": "c1", "type": "function", "function": {"name": "count", "arguments": '{"unit": "pens"}'}}
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is this"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Hm.",
            "tool_calls": [call, {**call, "id": "c2", "function": {"name": "count", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "tool", "tool_call_id": "c2", "content": "Error: no"},
        {"role": "user", "content": "so?"},
    ]
    function = {"name": "count", "description": "counts", "parameters": {"type": "object"}}
    assert sent["tools"] == [{"type": "function", "function": function}]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "count"}}
    assert (sent["parallel_tool_calls"], sent["stop"], sent["reasoning_effort"]) == (False, ["END"], "xhigh")
    assert sent["top_k"] == 5


def test_a_tool_call_is_a_block_and_can_be_sent_back_unchanged(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    answer = create(gateway, tools=[TOOL], tool_choice={"type": "any"})
    (call,) = answer.content
    assert isinstance(call, ToolUseBlock) and call.name == "count" and call.input["unit"] == "apples"
    assert answer.stop_reason == "tool_use" and endpoint.requests[0]["tool_choice"] == "required"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "7"}
    create(
        gateway,
        messages=[*ASKED, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}],
    )
    messages = endpoint.requests[-1]["messages"]
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"] == call.id


def test_an_answer_that_was_cut_says_so(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    assert create(gateway, model="single/words", max_tokens=2).stop_reason == "max_tokens"


def test_a_schema_asks_for_json(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}}
    answer = create(gateway, output_config={"format": {"type": "json_schema", "schema": schema}})
    (block,) = answer.content
    assert isinstance(block, TextBlock) and 1 <= json.loads(block.text)["sum"] <= 9
    assert endpoint.requests[0]["response_format"]["json_schema"]["schema"] == schema


def test_thinking_sets_the_cap_on_thoughts(start_gateway: Start) -> None:
    _, gateway = start_gateway(thinks="apart", thought=90, caps="thinking_token_budget", counts_thoughts=True)
    answer = create(gateway, model="words", max_tokens=200, thinking={"type": "enabled", "budget_tokens": 20})
    assert account(answer)["thinking"] == {"limit": 20, "most": 20, "held": True}


@pytest.mark.parametrize("model", [VOTE, "single/words", "words"])
@pytest.mark.parametrize("tools", [[], [TOOL]])
def test_the_events_of_a_stream_add_up_to_the_message(start_gateway: Start, model: str, tools: list[Any]) -> None:
    _, gateway = start_gateway(reasons=True)
    ask: dict[str, Any] = {
        "model": model,
        "messages": ASKED,
        "max_tokens": 64,
        "extra_body": {"seed": 3},
        "tools": tools,
    }
    with client(gateway).messages.stream(**ask) as stream:
        events = list(stream)
        final = stream.get_final_message()
    whole = client(gateway).messages.create(**ask)
    assert [block.to_dict() for block in final.content] == [block.to_dict() for block in whole.content]
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert final.usage.input_tokens == whole.usage.input_tokens > 0
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2
    thought, said = final.content
    assert isinstance(thought, ThinkingBlock) and thought.thinking == "Let me see."
    assert isinstance(said, ToolUseBlock if tools else TextBlock)
    if not tools:
        assert (kinds.count("text") > 3) == (model != VOTE)


def test_a_search_sends_its_progress_as_comments_in_the_stream(start_gateway: Start) -> None:
    _, gateway = start_gateway(n="ignored")
    text = gateway.read({"model": VOTE, "messages": ASKED, "max_tokens": 64, "stream": True}, "messages")
    assert text.count(b": sample ") == 4 and text.count(b"event: content_block_delta\n") == 1


def test_errors_have_the_shape_of_this_api(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    with pytest.raises(APIStatusError) as missing:
        create(gateway, model="majority/other")
    assert missing.value.status_code == 404
    assert missing.value.body["type"] == "error"  # type: ignore[index]
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    endpoint.faults.append("broken")
    with (
        pytest.raises(APIError),
        client(gateway).messages.stream(model="words", messages=ASKED, max_tokens=64) as stream,
    ):
        list(stream)


def test_the_key_may_come_in_anthropics_header_and_stays_here(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(keyed(Budget(tokens=10_000)), probed=False)
    with pytest.raises(AuthenticationError) as refused:
        create(gateway)
    assert refused.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    answer = client(gateway, KEY).messages.create(model=VOTE, messages=ASKED, max_tokens=64)
    assert account(answer)["samples"] == 4
    status, _, _ = gateway.ask({"model": "words", "messages": ASKED, "max_tokens": 64}, x_api_key=KEY)
    assert status == 200 and not any(KEY in str(headers) for headers in endpoint.headers)


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("container", {"container": "c"}),
        ("mcp_servers", {"extra_body": {"mcp_servers": [{"url": "u"}]}}),
        ("max_tokens", {"max_tokens": 0}),
        ("messages", {"messages": []}),
        ("messages[0]", {"messages": ["hi"]}),
        ("messages[0].role", {"messages": [{"role": "judge", "content": "hi"}]}),
        ("messages[0].content", {"messages": [{"role": "user", "content": 3}]}),
        ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [{"type": "document"}]}]}),
        ("messages[0].content[0].type", {"messages": [{"role": "assistant", "content": [{"type": "image"}]}]}),
        (
            "messages[0].content[0].source.type",
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]},
        ),
        ("system", {"system": 3}),
        ("system[0].type", {"system": [{"type": "image"}]}),
        ("tools[0].type", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        ("tools", {"tools": TOOL}),
        ("tool_choice.type", {"tool_choice": {"type": "every"}}),
        ("thinking.type", {"thinking": {"type": "deep"}}),
        ("thinking.budget_tokens", {"thinking": {"type": "enabled", "budget_tokens": 0}}),
        ("output_config.effort", {"output_config": {"effort": "huge"}}),
        ("output_config.format.type", {"output_config": {"format": {"type": "grammar"}}}),
        ("metadata", {"metadata": "Ann"}),
        ("temperature", {"extra_body": {"temperature": "hot"}}),
    ],
)
def test_unsupported_fields_are_refused_by_name(start_gateway: Start, field: str, body: dict[str, Any]) -> None:
    endpoint, gateway = start_gateway()
    with pytest.raises(BadRequestError) as refused:
        create(gateway, **body)
    assert f"{field}=" in refused.value.body["error"]["message"]  # type: ignore[index]
    assert endpoint.requests == []
