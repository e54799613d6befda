"""A client of the gateway with OpenAI's package.

thinktime serve --upstream http://127.0.0.1:8000/v1 --port 9501
python examples/gateway_client.py --model qwen3-8b
"""

from __future__ import annotations

import argparse
import json

from openai import OpenAI


def main() -> None:
    """Ask for a vote, and print the answer, its share and its cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:9501/v1")
    parser.add_argument("--model", required=True, help="a model of the upstream")
    parser.add_argument("--method", default="majority:n=8@4000tok")
    parser.add_argument("question", nargs="?", default="what is 3 + 4")
    given = parser.parse_args()

    client = OpenAI(base_url=given.url, api_key="none")
    reply = client.chat.completions.create(
        model=f"{given.method}/{given.model}",
        messages=[{"role": "user", "content": given.question}],
        max_tokens=400,
    )
    print(reply.choices[0].message.content)
    about = (reply.model_extra or {})["thinktime"]
    print(f"share of the vote: {about['share']}")
    print(json.dumps({name: count for name, count in about["account"].items() if count}))


if __name__ == "__main__":
    main()
