"""Chat templates: the same prompts as transformers, whatever a template uses, and no harm from a bad one."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from thinktime.core.errors import InputError, ModelError
from thinktime.models.engine.templates import ChatTemplate, Messages

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
USER: Messages = [{"role": "user", "content": "What is 2 + 2?"}]
TURNS: Messages = [
    {"role": "system", "content": "Say 'né' & <b>."},
    {"role": "user", "content": "One\n\ntwo "},
    {"role": "assistant", "content": "{{ 1 }}", "reasoning": "hm"},
    {"role": "user", "content": "three"},
]
LOOP = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
ALTERNATE = """
{%- for m in messages -%}
  {%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('roles must alternate') }}{%- endif -%}
  [{{ m.role }}]{{ m.content }}
{%- endfor -%}"""


def theirs(source: str, messages: Messages) -> str:
    """The prompt that transformers renders."""
    from transformers.utils.chat_template_utils import render_jinja_template

    variables: dict[str, Any] = {"tools": None, "documents": None, "add_generation_prompt": True}
    rendered, _ = render_jinja_template([list(messages)], chat_template=source, **variables, **TOKENS)
    text: str = rendered[0]
    return text


@pytest.mark.parametrize("messages", [USER, TURNS], ids=["one turn", "four turns"])
@pytest.mark.parametrize(
    "source",
    [
        LOOP,
        "{{ bos_token }}" + LOOP + "{{ 'a' + eos_token }}",
        "\n    {% for m in messages %}\n        {{ m['content'] | trim }}\n    {% endfor %}\n",
        "{%- for m in messages %}\n  {%- if loop.index == 2 %}\n{% continue %}\n{%- endif %}\n"
        "{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{% break %}{% endfor %}",
        "{% for m in messages %}{% generation %}{% set x = m.content %}{{ x }}{% endgeneration %}{{ x }}{% endfor %}",
        "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}",
        "{% if tools is not none %}tools{% endif %}{% if documents %}documents{% endif %}{{ unk_token }}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}" + LOOP,
        "{% macro turn(m) %}<{{ m.role }}>{{ caller() }}{% endmacro %}"
        "{% for m in messages %}{% call turn(m) %}{{ m.content }}{% endcall %}{% endfor %}",
        "{{ strftime_now('%Y') }}" + LOOP,
        "{% for m in messages %}{{ m.reasoning_content }}{{ m.thinking }}{{ m.content }}{% endfor %}",
        "{{ dict(a=1) | tojson }}" + LOOP,
        "{{ messages[-1].content.split('\n')[0] }}{{ messages[0].content[::-1] }}{{ add_generation_prompt }}" + LOOP,
    ],
)
def test_a_prompt_is_that_of_transformers(source: str, messages: Messages) -> None:
    assert ChatTemplate(source, TOKENS).render(messages) == theirs(source, messages)


def test_turns_that_a_template_refuses_are_merged_and_a_warning_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    template = ChatTemplate(ALTERNATE, TOKENS)
    assert template.render(TURNS[1:]) == "[user]One\n\ntwo [assistant]{{ 1 }}[user]three" and not caplog.text
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = template.render([TURNS[0], *TURNS[1:], {"role": "user", "content": "four"}])
    assert found == "[user]Say 'né' & <b>.\n\nOne\n\ntwo [assistant]{{ 1 }}[user]three\n\nfour"
    assert len(caplog.records) == 1 and "refuses these roles (roles must alternate)" in caplog.text


def test_a_system_turn_that_a_template_drops_goes_before_the_users(caplog: pytest.LogCaptureFixture) -> None:
    drops = "{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    assert ChatTemplate(drops, TOKENS).render(TURNS[:2]) == "user: Say 'né' & <b>.\n\nOne\n\ntwo \n"
    assert "drops the system turn" in caplog.text


def test_a_refusal_that_merging_does_not_mend_is_a_bad_prompt() -> None:
    template = ChatTemplate("{{ raise_exception('no questions today') }}", TOKENS)
    with pytest.raises(InputError, match=r"prompt='system, user': .* refuses it: no questions today"):
        template.render(TURNS[:2])


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "too much time"),
        ("{% set ns = namespace(s='x') %}{% for a in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", "MiB"),
        ("{{ 'x' * 40000000 }}", "characters"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ messages.nothing.at_all }}", "UndefinedError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
    ],
)
def test_a_bad_template_is_an_error_of_the_model_and_the_next_one_renders(source: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        ChatTemplate(source, TOKENS).render(USER)
    assert ChatTemplate(LOOP, TOKENS).render(USER) == "user: What is 2 + 2?\n"
