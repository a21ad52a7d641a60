"""One way to run a model.

- `batching`: how rows become batches, and the limits of memory;
- `forward`: one pass: logits where they are read, lower layers once for all strengths;
- `prefixes`: rows that begin alike, computed once up to where they part;
- `answers`: choices of two words: log-ratio and probability mass;
- `likelihood`: log-probabilities of given answers;
- `distributions`: whole next-token distributions at several strengths;
- `sampling`: sampling and greedy decoding;
- `capture`: the states that modules read and put out.
"""
