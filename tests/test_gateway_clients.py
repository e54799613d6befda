"""OpenAI's own client against the gateway: plain, async, streaming, tools, structured output."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fake_endpoint import Running
from gateway_server import MESSAGES, Serving, Start
from openai import APIError, AsyncOpenAI, NotFoundError, OpenAI, RateLimitError
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel
from toy import LengthScorer

TOOLS: Any = [
    {"type": "function", "function": {"name": "count", "parameters": {"type": "object", "properties": {}}}},
]
TALK: Any = MESSAGES


def client(gateway: Serving, **options: Any) -> OpenAI:
    return OpenAI(base_url=gateway.url, api_key="none", max_retries=0, **options)


def test_a_completion_is_read_with_its_usage_and_account(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    answer = client(gateway).chat.completions.create(model="majority:n=8/words", messages=TALK, max_tokens=64)
    assert answer.choices[0].finish_reason == "stop" and (answer.choices[0].message.content or "").strip()
    assert answer.usage is not None and answer.usage.completion_tokens == endpoint.generated_tokens
    assert answer.model_extra is not None and answer.model_extra["thinktime"]["samples"] == 8


def test_an_answer_is_a_whole_completion(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    answer = client(gateway).chat.completions.create(model="majority:n=8/words", messages=TALK)
    # the client itself accepts missing fields
    assert ChatCompletion.model_validate(answer.to_dict(), strict=True) == answer
    assert answer.usage is not None and answer.id.startswith("chatcmpl-")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("model", ["majority:n=2/words", "single/words", "words"])
def test_the_text_of_a_model_is_returned_unchanged(start_gateway: Start, model: str) -> None:
    endpoint, gateway = start_gateway()
    endpoint.says = ["Step 1. User: asks.\nAssistant: says <think>42</think>. System: \u2713 The answer is 42"]
    answer = client(gateway).chat.completions.create(model=model, messages=TALK)
    assert answer.choices[0].message.content == endpoint.says[0]
    assert "".join(said(streamed(gateway, model=model))) == endpoint.says[0]


def test_the_method_can_be_in_extra_body(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    client(gateway).chat.completions.create(
        model="words", messages=TALK, extra_body={"thinktime": {"strategy": "majority", "n": 5}}
    )
    assert endpoint.requests[0]["n"] == 5 and "thinktime" not in endpoint.requests[0]


def test_concurrent_requests_have_their_own_accounts(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(latency=0.02)

    async def all_of_them() -> list[Any]:
        async with AsyncOpenAI(base_url=gateway.url, api_key="none", max_retries=0) as some:
            ask = some.chat.completions.create
            return await asyncio.gather(*(ask(model="majority:n=4/words", messages=TALK) for _ in range(32)))

    answers = asyncio.run(all_of_them())
    assert len({answer.id for answer in answers}) == 32
    assert sum(answer.usage.completion_tokens for answer in answers) == endpoint.generated_tokens


def test_the_async_client_streams_and_parses(start_gateway: Start) -> None:
    _, gateway = start_gateway(n="ignored")

    async def both() -> tuple[str, Any]:
        async with AsyncOpenAI(base_url=gateway.url, api_key="none", max_retries=0) as some:
            ask: Any = {"model": "majority:n=3/words", "messages": TALK, "seed": 4}
            stream = await some.chat.completions.create(**ask, stream=True)
            parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return "".join(parts), await some.chat.completions.parse(**ask, response_format=Sum)

    text, parsed = asyncio.run(both())
    assert "answer is" in text and parsed.choices[0].message.parsed.sum in (7, 8, 9)


# streams


def streamed(gateway: Serving, **body: Any) -> list[ChatCompletionChunk]:
    options: Any = {"messages": TALK, "stream": True, "stream_options": {"include_usage": True}, **body}
    return list(client(gateway).chat.completions.create(**options))


def said(chunks: list[ChatCompletionChunk], what: str = "content") -> list[str]:
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    return [text for delta in deltas if (text := getattr(delta, what, None))]


def test_a_search_streams_its_progress_as_thoughts_then_the_answer_its_end_and_the_usage(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    chunks = streamed(gateway, model="majority:n=5/words")
    thoughts, (answer,) = said(chunks, "reasoning_content"), said(chunks)
    assert [line.split(":")[0] for line in thoughts] == [f"sample {number}" for number in range(1, 6)]
    assert chunks[0].choices[0].delta.role == "assistant" and "answer is" in answer
    ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert ends == [None] * (len(ends) - 1) + ["stop"]
    assert len({(chunk.id, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == endpoint.generated_tokens
    assert chunks[-2].model_extra is not None and chunks[-2].model_extra["thinktime"]["samples"] == 5


def test_one_sample_streams_token_by_token_with_the_models_own_thoughts(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(reasons=True)
    chunks = streamed(gateway, model="single/words", seed=1)
    assert endpoint.requests[0]["stream"] is True
    assert said(chunks, "reasoning_content") == ["Let me see."]
    whole = client(gateway).chat.completions.create(model="single/words", messages=TALK, seed=1)
    assert len(said(chunks)) > 3 and "".join(said(chunks)) == whole.choices[0].message.content
    assert whole.choices[0].message.model_extra == {"reasoning_content": "Let me see."}
    assert chunks[-1].usage == whole.usage


def test_tokens_come_before_the_answer_is_whole(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    endpoint.sprint = 3  # the rest never comes
    with client(gateway).chat.completions.create(model="single/words", messages=TALK, stream=True) as chunks:
        assert any(said([chunk]) for chunk in chunks)


def test_a_stream_without_usage_options_has_no_usage(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    for model in ("majority:n=2/words", "single/words"):
        chunks = streamed(gateway, model=model, stream_options=None)
        assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_an_upstream_that_does_not_stream_is_reported_at_once(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    endpoint.faults.append("no stream")
    assert len(said(streamed(gateway, model="single/words"))) == 1


def test_completions_stream_too(start_gateway: Start) -> None:
    _, gateway = start_gateway(probed=False)
    for model in ("majority:n=3/words", "single/words", "words"):
        stream = client(gateway).completions.create(model=model, prompt="what is 3 + 4\n", max_tokens=64, stream=True)
        chunks = [chunk.choices[0] for chunk in stream]
        assert "answer is" in "".join(choice.text for choice in chunks) and chunks[-1].finish_reason == "stop"


def test_errors_become_the_clients_exceptions_also_in_a_stream(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    endpoint.faults.append("429:90")
    with pytest.raises(RateLimitError) as limited:
        streamed(gateway, model="majority:n=3/words")
    assert limited.value.response.headers["retry-after"] == "90"
    with pytest.raises(NotFoundError, match="nothing"):
        streamed(gateway, model="single/nothing")
    endpoint.faults.append("broken")
    with pytest.raises(APIError, match="out of memory"):
        streamed(gateway, model="single/words")


# tools and structures


def test_tool_calls_vote_by_name_and_arguments(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    answer = client(gateway).chat.completions.create(model="majority:n=16/words", messages=TALK, tools=TOOLS, seed=3)
    choice, received = answer.choices[0], (answer.model_extra or {})["thinktime"]
    call: Any = (choice.message.tool_calls or [])[0]
    assert (choice.finish_reason, choice.message.content, call.function.name) == ("tool_calls", None, "count")
    assert json.loads(call.function.arguments)["unit"] == "apples" and call.id.startswith("call_")
    votes = [received["share"] * 16, json.loads(received["answer"])[0]["function"]["arguments"]["count"]]
    assert votes[0] == round(votes[0]) >= 5  # the spellings differ, so votes by text would be scattered
    assert votes[1] == json.loads(call.function.arguments)["count"] and len(endpoint.requests) == 16


@pytest.mark.parametrize("model", ["majority:n=4/words", "single/words"])
def test_tool_calls_stream(start_gateway: Start, model: str) -> None:
    _, gateway = start_gateway()
    with client(gateway).chat.completions.stream(model=model, messages=TALK, tools=TOOLS) as stream:
        final = stream.get_final_completion()
    call: Any = (final.choices[0].message.tool_calls or [])[0]
    assert final.choices[0].finish_reason == "tool_calls" and call.function.name == "count"
    assert json.loads(call.function.arguments)["unit"] == "apples"


def test_samples_without_a_tool_call_vote_for_the_same_answer(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.says = ["Done.", "All is done.", "so 7", "I am done.", "so 7"]
    answer = client(gateway).chat.completions.create(model="majority:n=5/words", messages=TALK, tools=TOOLS)
    received = (answer.model_extra or {})["thinktime"]
    assert answer.choices[0].message.tool_calls is None and "one." in (answer.choices[0].message.content or "")
    assert (received["answer"], received["share"]) == (None, 0.6)


class Sum(BaseModel):
    sum: int


def test_structured_output_votes_by_value_and_is_parsed(start_gateway: Start) -> None:
    _, gateway = start_gateway(n="ignored")
    answer = client(gateway).chat.completions.parse(
        model="majority:n=9/words", messages=TALK, response_format=Sum, seed=2
    )
    parsed, received = answer.choices[0].message.parsed, (answer.model_extra or {})["thinktime"]
    assert parsed is not None and json.loads(received["answer"]) == {"sum": parsed.sum}
    assert received["share"] > 0.3


def test_log_probabilities_are_returned_on_request(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    ask = client(gateway).chat.completions.create
    plain = ask(model="majority:n=2/words", messages=TALK)
    asked = ask(model="majority:n=2/words", messages=TALK, logprobs=True)
    assert plain.choices[0].logprobs is None
    assert asked.choices[0].logprobs is not None and asked.choices[0].logprobs.content


# answers that cannot be read


def test_without_a_readable_answer_the_most_frequent_text_is_chosen_or_the_first(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.says = ["I think so.", "Perhaps.", "I  think so.", "No."]
    answer = client(gateway).chat.completions.create(model="majority:n=4/words", messages=TALK)
    received = (answer.model_extra or {})["thinktime"]
    assert answer.choices[0].message.content in ("I think so.", "I  think so.")
    assert (received["answer"], received["share"], received["finish"]) == (None, 0.5, "done")


def test_equal_values_in_other_spellings_are_one_answer(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.says = [f"The answer is {answer}" for answer in ("7", "0.5", "7", "1/2", r"\frac{1}{2}")]
    answer = client(gateway).chat.completions.create(model="majority:n=5/words", messages=TALK)
    assert (answer.model_extra or {})["thinktime"]["share"] == 0.6


def test_texts_without_an_answer_never_outvote_a_readable_answer(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.says = ["No idea.", "No idea.", "No idea.", "The answer is 7"]
    answer = client(gateway).chat.completions.create(model="majority:n=4/words", messages=TALK)
    assert answer.choices[0].message.content == "The answer is 7"


def test_without_a_readable_answer_the_best_scored_text_is_chosen_if_there_is_a_scorer() -> None:
    says = ["No.", "It may well be so.", "No.", "Perhaps."]
    with Running(n="ignored", says=says) as endpoint, Serving(endpoint.url, LengthScorer()) as gateway:
        answer = client(gateway).chat.completions.create(model="best_of_n:n=4/words", messages=TALK)
        listed = [model.id for model in client(gateway).models.list()]
    assert answer.choices[0].message.content == "It may well be so."
    assert (answer.model_extra or {})["thinktime"]["account"]["scorer_calls"] == 4
    assert "best_of_n/words" in listed and "bon-words" not in listed


def test_a_model_behind_the_gateway_checks_its_own_answers() -> None:
    says = ["The answer is 7", "The answer is 8", "Verdict: Yes", "Verdict: Yes"]
    with Running(n="ignored", says=says) as endpoint, Serving(endpoint.url) as gateway:
        answer = client(gateway).chat.completions.create(
            model="generative_verification:n=2,checks=1/words", messages=TALK
        )
    assert answer.choices[0].message.content in says[:2]
    assert (answer.model_extra or {})["thinktime"]["account"]["model_calls"] == 4
