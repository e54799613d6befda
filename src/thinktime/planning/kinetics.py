"""What inference costs by FLOPs and by eFLOPs, and the best plan within a cost (Sadhukhan et al., arXiv 2506.05333).

Decoding reads the keys and values of all earlier tokens at every step. eFLOPs charge this memory traffic too: they are
the FLOPs plus the bytes read, times the FLOPs that the device computes while it reads one byte. Nothing here needs
torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from statistics import fmean
from typing import Any

from thinktime.core.errors import InputError, UnknownNameError
from thinktime.models.engine.costs import Shape

DEVICES: Mapping[str, float] = {"b200": 562.5, "b200-dense": 281.25, "h100": 295.2}
"""FLOPs per byte. ``b200`` is the number of the paper, 4.5e15 FLOP/s over 8e12 B/s; ``b200-dense`` has half of the
FLOP/s, for dense products of 16-bit numbers. ``h100`` is 9.89e14 over 3.35e12, of its data sheet."""
KINDS = ("topk", "block_topk", "local", "random")
_ARCHITECTURE = ("layers", "heads", "kv_heads", "head_dim", "parameters")


def intensity(device: str | float) -> float:
    """The FLOPs per byte of a device: a name of `DEVICES`, or the number.

    Raises:
        UnknownNameError: there is no device of this name.
        InputError: the number is not above 0. (The FLOPs alone are `KineticsCost.flops`.)
    """
    if isinstance(device, str):
        if device not in DEVICES:
            raise UnknownNameError("device", device, DEVICES)
        return DEVICES[device]
    if not (isfinite(device) and device > 0):
        raise InputError("device", device, "its FLOPs per byte are a number above 0")
    return device


def architecture(numbers: Mapping[str, Any], bytes_per_value: int = 2) -> Shape:
    """The shape of a model that is not on this machine, by the numbers of its configuration.

    Args:
        numbers: ``layers``, ``heads``, ``kv_heads``, ``head_dim``, and ``parameters``, the weights that each token is
            multiplied with: of a mixture of experts the active ones, with the head and without an embedding that is
            only a table.
        bytes_per_value: of weights, keys and values.

    Raises:
        InputError: a number is missing or not above 0, or the keys' heads do not divide the queries' heads.
    """
    if missing := [name for name in _ARCHITECTURE if numbers.get(name) is None]:
        raise InputError("architecture", sorted(numbers), f"it lacks {', '.join(missing)}; give them all")
    given = {name: numbers[name] for name in _ARCHITECTURE} | {"bytes_per_value": bytes_per_value}
    for name, value in given.items():
        if not isinstance(value, int | float) or not isfinite(value) or value < 1 or value != int(value):
            raise InputError(name, value, "give a whole number above 0")
    found = {name: int(value) for name, value in given.items()}
    if found["heads"] % found["kv_heads"]:
        raise InputError("kv_heads", found["kv_heads"], f"it has to divide the {found['heads']} heads")
    return Shape(**found)


@dataclass(frozen=True)
class Sparse:
    """Sparse attention: a query attends to at most ``budget`` positions, always to the first and the last ones.

    Args:
        kind: how the positions between these are chosen. ``topk`` takes those with the highest scores, ``block_topk``
            whole blocks by the mean of their keys, ``random`` any, and ``local`` none.
        budget: positions in all.
        sink: first positions that are kept.
        local: last positions that are kept, the query's own included; ``local`` attention keeps the whole rest there.
        block: positions of a block.

    Raises:
        UnknownNameError: there is no such kind. (It is one kind; two cannot be combined.)
        InputError: a number is out of its range, or the budget is below what is always kept.
    """

    kind: str
    budget: int
    sink: int = 4
    local: int = 64
    block: int = 16

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("attention", self.kind, KINDS)
        if self.sink < 0:
            raise InputError("sink", self.sink, "give 0 or more")
        if self.block < 1:
            raise InputError("block", self.block, "give 1 or more")
        if self.local < 1:
            raise InputError("local", self.local, "give 1 or more; a query has to see its own position")
        least = self.sink + {"local": 1, "block_topk": self.local + self.block}.get(self.kind, self.local + 1)
        if self.budget < least:
            raise InputError("budget", self.budget, f"{self.kind} attention with these options needs {least} or more")

    @property
    def last(self) -> int:
        """Last positions that are always kept."""
        return self.budget - self.sink - self.middle

    @property
    def middle(self) -> int:
        """Positions that are chosen between the first and the last ones; whole blocks for ``block_topk``."""
        if self.kind == "local":
            return 0
        chosen = self.budget - self.sink - self.local
        return chosen // self.block * self.block if self.kind == "block_topk" else chosen


@dataclass(frozen=True)
class KineticsCost:
    """The terms of the cost of one problem, and what they are the cost of.

    ``linear``, ``attention``, ``search`` and ``prefill`` are in FLOPs: of the weights, of the attended positions, of
    the choice of positions, and of reading the prompt once. ``kv_bytes`` are the keys and values read while decoding,
    ``weight_bytes`` the weights read for it.
    """

    samples: float
    prompt: float
    generated: float
    linear: float
    attention: float
    search: float
    kv_bytes: float
    weight_bytes: float
    prefill: float

    @property
    def flops(self) -> float:
        """FLOPs of decoding."""
        return self.linear + self.attention + self.search

    def eflops(self, device: str | float, *, prefill: bool = True, weights: bool = False) -> float:
        """FLOPs plus memory traffic, of a device by `intensity`.

        Args:
            device: its name, or its FLOPs per byte.
            prefill: charge the prompt too; the paper does not.
            weights: charge the reading of weights too; the paper assumes a batch so large that it does not count.
        """
        traffic = self.kv_bytes + (self.weight_bytes if weights else 0.0)
        return self.flops + (self.prefill if prefill else 0.0) + intensity(device) * traffic

    def as_dict(self) -> dict[str, float]:
        """All terms, for a log."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def kinetics(
    shape: Shape,
    samples: int,
    prompt: int,
    generated: int,
    *,
    sparse: Sparse | None = None,
    sharing: bool = True,
    batch: int | None = None,
) -> KineticsCost:
    """The cost of ``samples`` answers of ``generated`` tokens to one prompt of ``prompt`` tokens.

    Dense attention: the mean context of a token is ``prompt + generated / 2``. The prompt's keys and values are read
    once for all samples; each sample's own are read for it alone. Sparse attention reads, for every token, as many
    positions as the budget or its context has, and shares none. The search of blocks reads one key for each block; the
    other kinds are charged nothing for their choice, as in the paper.

    Args:
        shape: of the model.
        samples: decoded together.
        prompt: tokens.
        generated: tokens of each sample.
        sparse: None is dense attention.
        sharing: whether samples share the prompt's keys and values; False if they are not decoded together.
        batch: sequences that share one reading of the weights; all samples of the problem unless given.

    Raises:
        InputError: a number is below its least value.
    """
    for name, value, least in (("samples", samples, 1), ("prompt", prompt, 0), ("generated", generated, 0)):
        if value < least:
            raise InputError(name, value, f"give {least} or more")
    if batch is not None and batch < 1:
        raise InputError("batch", batch, "give 1 or more")
    width, size = shape.kv_heads * shape.head_dim * shape.layers, shape.bytes_per_value
    group = shape.heads // shape.kv_heads
    search = traffic = 0.0
    if sparse is None:
        attended = samples * (prompt * generated + generated**2 / 2)
        traffic = 2 * size * width * ((1 if sharing else samples) * prompt * generated + samples * generated**2 / 2)
    else:
        attended = samples * float(attended_positions(sparse.budget, prompt, generated))
        traffic = 2 * size * width * attended
        if sparse.kind == "block_topk":
            search = samples * ((2 * prompt + generated) // sparse.block) * generated * group * width
            traffic += size / 2 * ((2 * prompt + samples * generated) // sparse.block) * generated * width
    return KineticsCost(
        samples=samples,
        prompt=prompt,
        generated=generated,
        linear=2.0 * samples * shape.parameters * generated,
        attention=4.0 * group * width * attended,
        search=float(search),
        kv_bytes=float(traffic),
        weight_bytes=float(size * shape.parameters * generated * ceil(samples / (batch or samples))),
        prefill=2.0 * shape.parameters * prompt + 2.0 * group * width * prompt**2,
    )


def attended_positions(budget: int, prompt: int, generated: int) -> int:
    """The sum of min(budget, prompt + t) over the tokens t = 1 to ``generated``, exactly."""
    growing = max(0, min(generated, budget - prompt))  # tokens whose whole context is within the budget
    return growing * prompt + growing * (growing + 1) // 2 + (generated - growing) * budget


def recorded(
    shape: Shape,
    prompts: Sequence[int],
    lengths: Sequence[int],
    samples: int = 1,
    *,
    sparse: Sparse | None = None,
    sharing: bool = True,
    batch: int | None = None,
) -> KineticsCost:
    """The mean cost over recorded samples, if ``samples`` of each length were drawn.

    The cost is that of each length, and not that of the mean length, because it grows faster than the length.

    Args:
        shape: of the model.
        prompts: the tokens of each sample's prompt.
        lengths: the tokens of each sample.
        samples: as in `kinetics`, like the other options.
        sparse: as in `kinetics`.
        sharing: as in `kinetics`.
        batch: as in `kinetics`.

    Raises:
        InputError: the two differ in size, or there is no sample.
    """
    if len(prompts) != len(lengths) or not lengths:
        raise InputError("lengths", f"{len(prompts)} prompts, {len(lengths)} lengths", "give one of each for a sample")
    pairs = zip(prompts, lengths, strict=True)
    return mean_cost(kinetics(shape, samples, p, n, sparse=sparse, sharing=sharing, batch=batch) for p, n in pairs)


def mean_cost(costs: Iterable[KineticsCost]) -> KineticsCost:
    """The mean of every term."""
    every = list(costs)
    return KineticsCost(**{name: fmean(getattr(c, name) for c in every) for name in KineticsCost.__dataclass_fields__})


@dataclass(frozen=True)
class Sized:
    """A model with a number of samples and a cap of their length: how often it is right, and what it costs.

    ``cost`` is in any unit that all have in common; ``sequential`` are the tokens generated one after the other.
    """

    model: str
    samples: int
    cap: int
    quality: float
    cost: float
    sequential: float


def best_within(plans: Iterable[Sized], budget: float, unit: str = "eFLOPs") -> Sized:
    """The plan with the highest quality within a budget; of equal ones that with fewer sequential tokens, then cheaper.

    Raises:
        InputError: no plan is within the budget. The message names the smallest one.
    """
    every = list(plans)
    able = [plan for plan in every if plan.cost <= budget]
    if not able:
        least = min(every, key=lambda plan: plan.cost)
        name = f"model {least.model}, N={least.samples}, cap {least.cap}"
        raise InputError("budget", f"{budget:.3g} {unit}", f"the smallest plan costs {least.cost:.3g} {unit} ({name})")
    return min(able, key=lambda plan: (-plan.quality, plan.sequential, plan.cost))
