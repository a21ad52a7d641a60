"""Articles and capitals."""


def with_article(noun: str) -> str:
    """
    >>> with_article("honest friend"), with_article("kind person")
    ('an honest friend', 'a kind person')
    """
    return f"{'an' if noun.startswith(('a', 'e', 'i', 'o', 'u', 'honest')) else 'a'} {noun}"


def sentence(text: str) -> str:
    """First letter in upper case."""
    return text[0].upper() + text[1:]
