"""The verbs, one file each: ``VERB`` says what it is, a function calls and prints."""
