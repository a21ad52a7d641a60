"""The pages of a report from their templates: one environment and one style sheet for all of them."""

from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from weightsteer.formatting import number, signed


def rendered(template: str, **told: Any) -> str:
    """A template of this package with the style sheet in it; a name that it asks for and is not told is an error."""
    folder = files("weightsteer.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"signed": signed, "number": number}
    style = Markup((folder / "style.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, **told)
