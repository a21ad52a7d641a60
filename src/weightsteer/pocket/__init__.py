"""The embedded models: small chat models over a generated world whose truth is known."""
