"""Names that lessons and learners' notebooks use, whatever the modules behind them are called."""

import ast
import pkgutil
from importlib import import_module
from pathlib import Path

import jedi

import qlearn


def test_modules_answer_to_the_names_that_notebooks_use():
    from qlearn import layerwise, low_bits, qconfigs, repair, schemes

    assert callable(layerwise.layer_errors) and callable(layerwise.sensitivity)
    assert callable(low_bits.kept_study) and callable(qconfigs.weight_qconfig)
    assert callable(repair.fold) and "fp32" in schemes.ALL


def test_no_module_beside_them_hides_a_public_function():
    """Importing `qlearn.x` sets the attribute x of the package."""
    beside = {module.name for module in pkgutil.iter_modules(qlearn.__path__)}
    for name in beside & set(qlearn.__all__):
        assert getattr(qlearn, name) is import_module(f"qlearn.{name}"), name


def test_every_public_name_is_there():
    for name in qlearn.__all__:
        assert getattr(qlearn, name) is not None


def test_editors_are_told_the_same_names():
    """What the stub imports, under each name, is what the package gives; and it tells them all."""
    body = ast.parse(Path(qlearn.__file__).with_suffix(".pyi").read_text()).body
    told = {}
    for node in body:
        if isinstance(node, ast.ImportFrom):
            home = "qlearn" if node.level else node.module
            for alias in node.names:
                there = import_module(home)
                if not hasattr(there, alias.name):
                    import_module(f"{home}.{alias.name}")
                told[alias.asname or alias.name] = getattr(there, alias.name)
    assert told == {name: getattr(qlearn, name) for name in qlearn.__all__}
    (exported,) = [n.value for n in body if isinstance(n, ast.Assign)]
    assert sorted(ast.literal_eval(exported)) == sorted(qlearn.__all__)


def test_jedi_completes_every_name_and_knows_signatures():
    """Jedi is what completes in JupyterLab; it passes over what a stub imports without `as`."""
    project = jedi.Project(Path(qlearn.__file__).parents[1])
    found = jedi.Script("import qlearn\nqlearn.", project=project).complete()
    assert set(qlearn.__all__) <= {completion.name for completion in found}
    (signature,) = jedi.Script("import qlearn\nqlearn.sweep(", project=project).get_signatures()
    assert [parameter.name for parameter in signature.params][:3] == ["model", "schemes", "data"]
