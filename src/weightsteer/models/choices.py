"""The tokens that spell an answer such as Yes or A."""

from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError

# A token that starts a word carries one of these in front: byte-level BPE, SentencePiece, WordPiece, newline.
_BOUNDARY_MARKS = ("##", "Ġ", "▁", "Ċ", " ", "\n")

# by tokenizer, then by whether the texts were decoded: what every token spells
_vocabularies: WeakKeyDictionary[PreTrainedTokenizerBase, dict[bool, dict[str, list[int]]]] = WeakKeyDictionary()


def choice_ids(tokenizer: PreTrainedTokenizerBase, choice: str) -> list[int]:
    """Every vocabulary id whose text, without a leading boundary mark and lower-cased, is the choice.

    "Yes" thus covers ``Yes``, ``ĠYes``, ``yes``, ``YES``…; punctuated variants are not counted (they would
    make the mass of a choice depend on the style of the answer).

    Raises:
        WeightsteerError: no single token spells the choice.
    """
    wanted = choice.strip().lower()
    cached = _vocabularies.setdefault(tokenizer, {})
    # byte-level vocabularies store other scripts in an alphabet of their own; decoding it all is slow
    decoded = not wanted.isascii()
    if decoded not in cached:
        cached[decoded] = _spellings(tokenizer, decoded)
    if not (ids := cached[decoded].get(wanted)):
        raise WeightsteerError(
            f"the choice {choice!r} is not a single token of this model's vocabulary, so its probability "
            "cannot be read at one position. Use choices that are single tokens, such as Yes/No, A/B or 1/2."
        )
    return ids


def _spellings(tokenizer: PreTrainedTokenizerBase, decoded: bool) -> dict[str, list[int]]:
    """Vocabulary ids by what they spell, lower-cased and without one boundary mark."""
    ids = range(len(tokenizer))
    texts = [tokenizer.decode([i]) for i in ids] if decoded else tokenizer.convert_ids_to_tokens(list(ids))
    spelled: dict[str, list[int]] = {}
    for index, text in zip(ids, texts, strict=True):
        mark = next((mark for mark in _BOUNDARY_MARKS if text and text.startswith(mark)), "")
        spelled.setdefault((text or "")[len(mark) :].lower(), []).append(index)
    return spelled
