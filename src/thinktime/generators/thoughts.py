"""Enforces a cap on the thoughts of an endpoint's samples and counts their tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

from thinktime.generators.text import RemoteText
from thinktime.models.remote.probe import THINK, Traits
from thinktime.models.remote.protocol import Api, Choice, ReportedUsage
from thinktime.models.remote.thoughts import CLOSING, Cap, thinking, thinks_again, thought_tokens


@dataclass(frozen=True)
class Thoughts:
    """A cap of ``most`` tokens on the thoughts of a sample; ``cap`` is the way to enforce it."""

    most: int
    cap: Cap
    api: Api
    traits: Traits

    def first_limit(self, state: RemoteText, max_tokens: int) -> int:
        """Length limit of a first request, after which the sample is checked for an open thought."""
        if self.cap.by != "continuation" or self._is_over(state):
            return max_tokens
        return max(0, min(max_tokens, self.most - state.tokens))

    def closed(self, state: RemoteText) -> tuple[RemoteText, str]:
        """Close the thought of a sample at the cap, if it is open; return the state and the text that was added."""
        if self._is_over(state):
            return state, ""
        ending = CLOSING if state.text or self._begun(state) else f"{THINK}\n{CLOSING}"
        return replace(state, text=state.text + ending, thinking=state.tokens), ending

    def count(
        self, before: RemoteText, state: RemoteText, choice: Choice, reported: ReportedUsage | None
    ) -> int | None:
        """Upper bound of a sample's thought tokens; None if they are uncounted and may exceed the cap.

        Args:
            before: the state that the request continued.
            state: the state after it.
            choice: the sample as the endpoint returned it.
            reported: the usage of its request, if that has no other sample.
        """
        if thinks_again(state.text):
            return state.tokens  # a second thought has no cap
        if self._is_over(before):
            return before.thinking
        begun, hidden = bool(before.text) or self._begun(before), self.traits.thinks == "hidden"
        new = state.tokens - before.tokens
        found = thought_tokens(choice, new, reported, begun=begun, hidden=hidden)
        new = new if found is None else found
        exact = found is not None or before.tokens + new <= self.most
        return before.tokens + new if exact else None

    def _is_over(self, state: RemoteText) -> bool:
        return bool(state.text) and not thinking(state.text, begun=self._begun(state))

    def _begun(self, state: RemoteText) -> bool:
        """Whether the prompt or the chat template begins the thought."""
        return state.prompt.rstrip().endswith(THINK) if self.api == "completions" else self.cap.begun
