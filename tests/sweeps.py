"""Rows and interventions to sweep, and the plain way that a sweep must equal."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import polars as pl
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.evals import Item, user_turn
from weightsteer.models import render_chat

ALPHAS = [-1.0, 0.0, 0.5, 2.0]
TOLERANCE = 1e-4  # nats
SCORES = ("alpha", "item", "logratio", "pmass")


def some_items(n: int = 9) -> list[Item]:
    """Rows of very different lengths, with answer prefixes and two kinds of choices."""
    words = "tell the truth about rivers and bread in winter because a house is red".split()  # noqa: SIM905
    return [
        Item(
            item=f"row-{i}",
            cluster=f"pair-{i // 2}",
            label=1 if i % 2 else -1,
            messages=user_turn(" ".join(words[j % len(words)] for j in range(i, i + 1 + 3 * i))),
            choices=("A", "B") if i % 3 == 2 else ("Yes", "No"),
            answer_prefix="My answer: **" if i % 2 else "",
        )
        for i in range(n)
    ]


def twins() -> list[Item]:
    """Rows that begin alike for a long way, in groups of three, two and one, out of order."""
    stems = [
        " ".join(f"the river {word} is long and the bread is old" for word in words) for words in ("abc", "xy", "k")
    ]
    endings = ("tell the truth?", "say nothing at all to your friend in the house?", "lie?")
    return [
        Item(f"{stem[10]}-{i}", stem[10], 1, user_turn(f"{stem}. Do you choose to: {ending}"), answer_prefix="**")
        for i, ending in enumerate(endings)
        for stem in stems[: 3 - i]
    ]


def merged_difference(model: PreTrainedModel, positive: Path, negative: Path) -> dict[str, Tensor]:
    """θ⁺ − θ⁻ by PEFT's own fp32 merges."""
    sides = [
        PeftModel.from_pretrained(deepcopy(model), str(folder)).merge_and_unload().state_dict()
        for folder in (positive, negative)
    ]
    return {name: sides[0][name] - sides[1][name] for name in sides[0]}


def plain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    delta: dict[str, Tensor],
    items: Sequence[Item],
    alphas: Sequence[float],
) -> pl.DataFrame:
    """The reference: nothing shared, nothing padded, nothing batched."""
    lines = []
    for alpha in alphas:
        steered = deepcopy(model)
        with torch.no_grad():
            for name, parameter in steered.named_parameters():
                if name in delta:
                    parameter += alpha * delta[name]
        for item in items:
            ids = render_chat(tokenizer, item.messages, answer_prefix=item.answer_prefix)
            with torch.no_grad():
                logp = steered(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
            first, second = (
                logp[[i for t, i in tokenizer.get_vocab().items() if t.lstrip("Ġ▁").lower() == c.lower()]]
                for c in item.choices
            )
            lines.append(
                {
                    "alpha": alpha,
                    "item": item.item,
                    "logratio": float(first.logsumexp(0) - second.logsumexp(0)),
                    "pmass": float(first.exp().sum() + second.exp().sum()),
                }
            )
    return pl.DataFrame(lines)


def assert_same(rows: pl.DataFrame, reference: pl.DataFrame, tolerance: float = TOLERANCE) -> None:
    joined = rows.join(reference, on=["alpha", "item"], suffix="_plain", validate="1:1")
    assert len(joined) == len(rows) == len(reference)
    for column in ("logratio", "pmass"):
        worst = (joined[column] - joined[f"{column}_plain"]).abs().max()
        assert isinstance(worst, float)
        assert worst < tolerance, f"{column} differs by {worst}"


class Shift:
    """A test intervention: y + α·direction at the output of any module, hidden state or tuple."""

    method = "activation"

    def __init__(self, names: list[str], size: int = 32, seed: int = 0, **metadata: Any) -> None:
        self.names = names
        self.metadata = {"behavior": "test", "adapter": "shift", "seed": seed, **metadata}
        self.direction = torch.randn(size, generator=torch.Generator().manual_seed(seed))

    def modify(self, name: str, module: nn.Module) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        def shifted(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            return y + (alpha.view(-1, *[1] * (y.ndim - 1)) * self.direction).to(y.dtype)

        return shifted


class Says:
    """A test prompt: a system turn that depends on the strength."""

    method = "prompt"
    names: list[str] = []  # noqa: RUF012
    alphas = (-1.0, 0.0, 1.0)

    def __init__(self, seed: int = 0) -> None:
        self.metadata = {"behavior": "test", "adapter": "says", "seed": seed}

    def messages(self, messages: list[dict[str, str]], alpha: float, tokenizer: Any) -> list[dict[str, str]]:
        assert alpha in self.alphas
        who = "an honest" if alpha > 0 else "a lying"
        return [{"role": "system", "content": f"You are {who} person."}, *messages]

    def modify(self, name: str, module: nn.Module) -> Any:
        raise AssertionError("a prompt hooks nothing")


def hooks(model: nn.Module) -> Iterator[Any]:
    """What is set on any module: hooks, and forwards of its own."""
    for module in model.modules():
        yield from module._forward_hooks.values()
        yield from module._forward_pre_hooks.values()
        if "forward" in vars(module):
            yield module.forward
