"""One way to run a model: batches, answer logits, likelihoods, sampling, and the states that modules read and write."""
