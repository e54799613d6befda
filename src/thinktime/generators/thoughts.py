"""A cap on the thoughts of an endpoint's model: how far a sample may run unseen, and what its thoughts took."""

from __future__ import annotations

from dataclasses import dataclass, replace

from thinktime.generators.text import RemoteText
from thinktime.remote.probe import THINK, Traits
from thinktime.remote.protocol import Api, Choice, ReportedUsage
from thinktime.remote.thoughts import CLOSING, Cap, thinking, thinks_again, thought_tokens


@dataclass(frozen=True)
class Thoughts:
    """At most ``most`` tokens of a sample are to be thoughts; ``cap`` is how that can be kept."""

    most: int
    cap: Cap
    api: Api
    traits: Traits

    def first_limit(self, state: RemoteText, max_tokens: int) -> int:
        """Tokens after which a sample has to be looked at, to see whether it still thinks."""
        if self.cap.by != "continuation" or self._is_over(state):
            return max_tokens
        return max(0, min(max_tokens, self.most - state.tokens))

    def closed(self, state: RemoteText) -> tuple[RemoteText, str]:
        """A sample at the end of what it may think: its thought ends here, if it has not before; and what ends it."""
        if self._is_over(state):
            return state, ""
        ending = CLOSING if state.text or self._begun(state) else f"{THINK}\n{CLOSING}"
        return replace(state, text=state.text + ending, thinking=state.tokens), ending

    def count(
        self, before: RemoteText, state: RemoteText, choice: Choice, reported: ReportedUsage | None
    ) -> int | None:
        """At most how many tokens of a sample are thoughts; None where nobody counted more than may be."""
        if thinks_again(state.text):
            return state.tokens  # it thought again, behind the end of its thought
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
        """Whether the prompt begins the thought."""
        return state.prompt.rstrip().endswith(THINK) if self.api == "completions" else self.cap.begun
