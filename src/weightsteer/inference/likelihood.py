"""Log-probabilities of given answers: what the self-judge reads and what training minimises."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.models import render_chat
from weightsteer.progress import progress
from weightsteer.steering.claims import claimed

FORWARD_TOKENS = 8192
# entries of one logit matrix (answer tokens × vocabulary): 512 MiB in fp32
LOGIT_ENTRIES = 2**27


class Answered(NamedTuple):
    """A prompt with its answer: ``ids[start:]`` is the answer, its end of sequence included."""

    ids: list[int]
    start: int

    @property
    def length(self) -> int:
        return len(self.ids)


def answered(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    answer: str,
    end: int,
    *,
    thinking: bool = False,
) -> Answered:
    """Token ids of a chat and the answer to it, exactly as they stand when the model answers.

    The prompt is rendered with its generation prompt, as for sampling, and the answer is put behind it; the
    template never renders the finished turn, which would strip or double thinking blocks.

    Raises:
        WeightsteerError: the tokens of the prompt are not the beginning of the tokens of the whole, so that
        no cut
            between them is right.
    """
    prompt = render_chat(tokenizer, messages, thinking=thinking)
    whole = render_chat(tokenizer, messages, answer_prefix=answer, thinking=thinking)
    if whole[: len(prompt)] != prompt:
        raise WeightsteerError(
            "the tokenizer joins the end of the chat template's generation prompt with the first letters of "
            f"the answer {answer[:40]!r}, so the loss cannot be cut between them. End the generation prompt "
            "of the chat template with a special token or a newline."
        )
    return Answered([*whole, end], len(prompt))


def log_likelihood(model: PreTrainedModel, batch: Sequence[Answered]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all answer tokens of a batch, differentiable.

    Only answer positions get logits. Padding is on the right and unmasked: attention is causal, so what
    stands behind an answer cannot matter to it.

    Returns:
        (m,) log-probabilities in nats, fp32, for the m answer tokens of all rows; (m,) the row each belongs
        to.
    """
    device = model.device
    longest = max(row.length for row in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    rows: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    for number, row in enumerate(batch):
        ids[number, : row.length] = torch.tensor(row.ids)
        rows += [number] * (row.length - row.start)
        # position t predicts token t + 1
        places += range(row.start - 1, row.length - 1)
        targets += row.ids[row.start :]
    row_index = torch.tensor(rows, device=device)
    with _only_at(model, row_index, torch.tensor(places, device=device)):
        logits = model(input_ids=ids.to(device), use_cache=False).logits
    loss = F.cross_entropy(logits[0].float(), torch.tensor(targets, device=device), reduction="none")
    return -loss, row_index


@contextmanager
def _only_at(model: PreTrainedModel, rows: Tensor, places: Tensor) -> Iterator[None]:
    """Let the output embedding see the (row, place) positions only: (b, t, d) becomes (1, m, d)."""

    def pick(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        claim.check()
        return (args[0][rows, places][None],)

    with claimed(model) as claim:
        handle = model.get_output_embeddings().register_forward_pre_hook(pick)
        try:
            yield
        finally:
            handle.remove()


def packed(rows: Sequence[Answered], vocabulary: int, *, budget: int = FORWARD_TOKENS) -> Iterator[list[int]]:
    """Indices of the rows of one forward pass after the other: longest first, so that little is padding."""
    most_answers = max(1, LOGIT_ENTRIES // vocabulary)
    order = sorted(range(len(rows)), key=lambda i: (-rows[i].length, i))
    batch: list[int] = []
    answers = 0
    for index in order:
        answer = rows[index].length - rows[index].start
        if batch and ((len(batch) + 1) * rows[batch[0]].length > budget or answers + answer > most_answers):
            yield batch
            batch, answers = [], 0
        batch.append(index)
        answers += answer
    if batch:
        yield batch


@torch.inference_mode()
def answer_logprobs(
    model: PreTrainedModel, rows: Sequence[Answered], *, title: str = "scoring", shown: bool = True
) -> list[float]:
    """log p(answer | prompt) of every row, summed over its tokens, in nats."""
    total = [0.0] * len(rows)
    with progress(title, len(rows), shown=shown) as advance:
        for batch in packed(rows, model.config.get_text_config().vocab_size):
            values, owner = log_likelihood(model, [rows[i] for i in batch])
            sums = torch.zeros(len(batch), dtype=torch.float64, device=values.device)
            sums.index_add_(0, owner, values.double())
            for index, value in zip(batch, sums.tolist(), strict=True):
                total[index] = value
            advance(len(batch))
    return total
