"""Pages from their templates: those that all pages share are in this folder, those of one page next to its code."""

from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from weightsteer.formatting import number, signed


def rendered(package: str, template: str, **values: Any) -> str:
    """A template of a package with the style sheet in it. A name that it uses and is not given is an error."""
    shared = files("weightsteer.report")

    def source(name: str) -> str | None:
        for folder in (files(package), shared):
            if (path := folder / name).is_file():
                return path.read_text(encoding="utf-8")
        return None

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"signed": signed, "number": number}
    style = Markup((shared / "style.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, **values)
