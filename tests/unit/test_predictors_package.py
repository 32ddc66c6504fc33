"""The package as a whole: names, lazy imports, examples in docstrings."""

import doctest
import importlib
import subprocess
import sys

import pytest

import predictors
from predictors import NAMES, PredictorError, build

MODULES = ("arima", "backtest", "base", "conformal", "kalman", "last_value", "prophet", "residuals")


@pytest.mark.parametrize("name", NAMES)
def test_every_name_builds_its_predictor(name: str) -> None:
    assert build(name).name == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(PredictorError, match=r"'Oracle'.*Kalman, Arima, LastValue, Prophet"):
        build("Oracle")


def test_importing_the_package_imports_no_heavy_library() -> None:
    names = "('scipy', 'pandas', 'statsmodels', 'prophet')"
    code = (
        "import sys, predictors; [predictors.build(n) for n in predictors.NAMES]; "
        f"print([m for m in {names} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "library", "mend"),
    [
        ("Prophet", "prophet", r"pip install 'pd-planner\[prophet\]'"),
        ("Arima", "statsmodels.tsa.statespace.sarimax", "pip install statsmodels"),
    ],
)
def test_a_missing_library_is_one_line_with_its_mend(
    monkeypatch: pytest.MonkeyPatch, name: str, library: str, mend: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(PredictorError, match=mend) as refusal:
        build(name).start()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_hold(module: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(f"predictors.{module}"))
    assert failed == 0


def test_the_package_example_holds() -> None:
    assert doctest.testmod(predictors).failed == 0
