"""Fills in the templates, which are data of this package."""

from importlib.resources import files
from string import Template


def filled(template: str, **values: object) -> str:
    """Return a template with its `$names` replaced.

    Raises:
        KeyError: the template has a name that is not among the values.
    """
    text = files("asyncexport.deploy").joinpath("assets", template).read_text(encoding="utf-8")
    return Template(text).substitute({name: str(value) for name, value in values.items()})
