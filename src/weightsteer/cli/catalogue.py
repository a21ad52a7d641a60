"""What there is to choose from: evaluations, behaviours, adapter families, bases, plans, controls and models."""


def catalogue(kind: str) -> list[tuple[str, str, str]]:
    """Name, one line about it and where it comes from, of everything of one kind."""
    from weightsteer.errors import WeightsteerError

    raise WeightsteerError(f"there is no list of {kind} yet.")
