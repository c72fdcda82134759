"""Makes full_size.npz: what TensorFlow and chrombpnet's rules make of ChromBPNet files of full size.

Run from the root as ``python -m tests.model.keras.make_full_size SHAP BIAS`` with TensorFlow 2.15 (Keras 2)
and pytest. SHAP is a checkout of https://github.com/kundajelab/shap at 29d2ffab, BIAS the published bias
model of GM12878. The other models have the layers, names and sizes of the published ones, and weights that
follow from their names; Keras writes each to a file, and the file that the tests build instead is checked to
be the same.

Predictions are TensorFlow's in float32, of the published model in float64 too. Scores are those of
``TFDeepExplainer``, which chrombpnet calls, in float64, for the numbers that chrombpnet explains: the counts,
and the sum over positions of ``softmax(stop_gradient(z)) * z`` of the mean-centred logits z. Multipliers m
become hypothetical contributions as in chrombpnet, ``m - sum(m * reference)`` over bases, averaged over
references.
"""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import tensorflow as tf  # type: ignore[import-not-found, import-untyped, unused-ignore]

from tests.model.keras.conftest import FOLDER, enlarge, full_size_weights
from tests.model.keras.make_files import bias_model, combined_model, nobias_model

SEQUENCES, REFERENCES, STRIDE = 2, 2, 16
MODELS: dict[str, Any] = {
    "chrombpnet_bias": lambda: bias_model(128, 4),
    "chrombpnet_nobias": lambda: nobias_model(512, 8),
    "chrombpnet": lambda: combined_model(128, 512),
}


def one_hot(seed: int, count: int) -> Any:
    """Sequences (count, 2114, 4) of raw bits."""
    return np.eye(4)[np.random.PCG64(seed).random_raw((count, 2114)) % np.uint64(4)]


def deep_explainer(checkout: Path) -> Any:
    """Chrombpnet's explainer, without the rest of the package, which needs old libraries."""
    for name in ("shap", "shap.explainers", "shap.explainers.deep"):
        package = ModuleType(name)
        package.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules[name] = package
    return importlib.import_module("shap.explainers.deep.deep_tf").TFDeepExplainer


def check_same(ours: Path, theirs: Path) -> None:
    """Stop unless both files have the same groups, attributes and numbers."""
    with h5py.File(ours) as first, h5py.File(theirs) as second:
        names: list[str] = []
        second.visit(names.append)
        found: list[str] = []
        first.visit(found.append)
        assert sorted(names) == sorted(found)
        for name in ["/", *names]:
            attributes = [dict(file[name].attrs) for file in (first, second)]
            described = [json.loads(part.pop("model_config", "{}")) for part in attributes]
            assert described[0] == described[1], name
            assert str(attributes[0]) == str(attributes[1]), name
            if isinstance(second[name], h5py.Dataset):
                np.testing.assert_array_equal(first[name][()], second[name][()])


def built(name: str, bias: Path, dtype: str) -> Any:
    """The model in this precision; a published file is the only one that is read."""
    tf.keras.backend.clear_session()
    tf.keras.backend.set_floatx(dtype)
    if name in MODELS:
        model = MODELS[name]()
        model.set_weights([full_size_weights(variable.name) for variable in model.weights])
        return model
    with h5py.File(bias) as file:
        described = file.attrs["model_config"].replace('"dtype": "float32"', f'"dtype": "{dtype}"')
    model = tf.keras.models.model_from_json(described)
    model.load_weights(bias)
    return model


def hypothetical(mult: Any, orig_inp: Any, bg_data: Any) -> Any:
    """How chrombpnet makes contributions of multipliers; the explainer names the arguments."""
    return [(mult[0] - (mult[0] * bg_data[0]).sum(-1, keepdims=True)).mean(0)]


def scores(explainer: Any, model: Any) -> dict[str, Any]:
    """Hypothetical contributions (4, 2114) of the first sequence to counts and profile."""
    profile, counts = model.outputs
    centred = profile - tf.reduce_mean(profile, axis=1)[:, None]
    weighted = tf.reduce_sum(tf.nn.softmax(tf.stop_gradient(centred), axis=1) * centred, axis=1)
    session = tf.compat.v1.keras.backend.get_session()
    found = {}
    for target, number in (("counts", tf.reduce_sum(counts, axis=-1)), ("profile-chrombpnet", weighted)):
        explaining = explainer(
            (model.input, number),
            lambda _: [one_hot(2, REFERENCES)],
            session=session,
            combine_mult_and_diffref=hypothetical,
        )
        found[target] = explaining.shap_values(one_hot(1, 1))[0].T
    return found


def results(name: str, explainer: Any, bias: Path) -> dict[str, Any]:
    """Everything that the tests compare with."""
    model = built(name, bias, "float32")
    profile, counts = model.predict(one_hot(1, SEQUENCES), verbose=0)
    stored = {"profile": profile, "log_counts": counts}
    if name in MODELS:
        with TemporaryDirectory() as folder:
            theirs, small, ours = (Path(folder) / f"{part}.h5" for part in ("theirs", "small", "ours"))
            model.save(theirs)
            small.write_bytes(gzip.decompress((FOLDER / f"{name}.keras2.h5.gz").read_bytes()))
            check_same(enlarge(small, ours), theirs)
    if name != "chrombpnet":  # chrombpnet explains the model without its bias
        model = built(name, bias, "float64")
        if name not in MODELS:
            exact = model.predict(one_hot(1, SEQUENCES), verbose=0)
            stored |= dict(zip(("float64/profile", "float64/log_counts"), exact, strict=True))
        for target, values in scores(explainer, model).items():
            stored[target] = values[:, ::STRIDE]
            stored[f"{target}/largest"] = np.abs(values).max()
    return {f"{name}/{part}": value for part, value in stored.items()}


def main() -> None:
    """Write the file."""
    checkout, bias = map(Path, sys.argv[1:])
    tf.compat.v1.disable_eager_execution()
    explainer = deep_explainer(checkout)
    stored: dict[str, Any] = {"versions": f"TensorFlow {tf.__version__}, Keras {version('keras')}"}
    for name in (*MODELS, "GM12878_bias"):
        stored |= results(name, explainer, bias)
    np.savez_compressed(FOLDER / "full_size.npz", **stored)
    sys.stdout.write(f"{stored['versions']}\n")


if __name__ == "__main__":
    main()
