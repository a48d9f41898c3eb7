"""A record of an evaluation: an interrupted run goes on, other conditions and damage are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from seedcnn.errors import DataError
from seedcnn.evaluate.record import EvaluationRecord
from seedcnn.evaluate.robustness_runs import robustness_seeds
from seedcnn.files import lock_file

SOME = ("gaussian_noise", "contrast", "pixelate")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (13, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(0, 4, 13)


def test_one_evaluation_writes_a_record_at_a_time(images, labels, tmp_path):
    path = tmp_path / "r.json"
    with lock_file(tmp_path / ".r.json.lock"), pytest.raises(DataError, match="is in use: another evaluation"):
        run(Model(), images, labels, path)
    run(Model(), images, labels, path)
    assert path.is_file()


class Model:
    """Answers that any change of a picture changes; can break off after some calls."""

    def __init__(self, calls_left=10**9):
        self.calls_left = calls_left
        self.calls = 0

    def __call__(self, batch):
        if self.calls == self.calls_left:
            raise KeyboardInterrupt
        self.calls += 1
        return np.eye(4, dtype=np.float32)[batch.sum(axis=(1, 2, 3), dtype=np.int64) % 4]


def run(model, images, labels, path, **options):
    defaults = {"seeds": (0, 1), "corruptions": SOME, "record": path, "digests": {"m": "abc"}}
    return robustness_seeds({"m": model}, images, labels, **(defaults | options))["m"]


def test_an_interrupted_run_goes_on(images, labels, tmp_path, stages):
    path = tmp_path / "r.json"
    whole = run(Model(), images, labels, None, digests=None)
    with pytest.raises(KeyboardInterrupt):
        run(Model(calls_left=1 + 5 + 3), images, labels, path)  # clean, one corruption, a part of the second
    kept = json.loads(path.read_text())["results"]
    assert {seed: list(names) for seed, names in kept.items()} == {"any": ["clean"], "0": ["gaussian_noise"]}
    assert list(tmp_path.iterdir()) == [path]
    model = Model()
    found = run(model, images, labels, path, progress=stages)
    assert model.calls == 2 * 5 + 5  # contrast and pixelate, then the noise of the second seed
    ((what, total, done),) = stages.said
    assert (what, total) == ("corrupted images", 2 * 3 * 5 * 13)
    assert sum(amount for amount, _ in done) == total
    assert done[0] == (5 * 13, "gaussian_noise")  # found in the record
    assert found == whole
    assert found.summary() == whole.summary()
    for mine, other in zip(found.tables, whole.tables, strict=True):
        np.testing.assert_array_equal(mine.clean_right, other.clean_right)
        for name in SOME:
            np.testing.assert_array_equal(mine.right[name], other.right[name])


def test_a_finished_record_needs_no_model_and_can_grow(images, labels, tmp_path):
    path = tmp_path / "r.json"
    first = run(Model(), images, labels, path)
    assert run(Model(calls_left=0), images, labels, path) == first
    model = Model()
    more = run(model, images, labels, path, corruptions=(*SOME, "saturate"))
    assert model.calls == 5
    assert more.tables[0].accuracies["contrast"] == first.tables[0].accuracies["contrast"]


def test_the_file_says_the_accuracies_in_the_open(images, labels, tmp_path):
    path = tmp_path / "r.json"
    found = run(Model(), images, labels, path)
    content = json.loads(path.read_text())
    stored = content["results"]["1"]["gaussian_noise"]["m"]["accuracies"]
    assert stored == pytest.approx(found.tables[1].accuracies["gaussian_noise"])
    assert content["conditions"]["models"] == {"m": "abc"}
    assert content["conditions"]["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"digests": {"m": "xyz"}}, r"models m: abc there, xyz here"),
        ({"seeds": (0, 2)}, r"seeds: \[0, 1\] there, \[0, 2\] here"),
        ({"constants": "imagenet"}, "constants: cifar there, imagenet here"),
        ({"severities": (1, 2)}, r"severities: \[1, 2, 3, 4, 5\] there, \[1, 2\] here"),
        ({"max_images": 12}, "images n: 13 there, 12 here; images sha256: "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_conditions_are_refused_by_name(images, labels, tmp_path, change, words):
    path = tmp_path / "r.json"
    run(Model(), images, labels, path)
    before = path.read_bytes()
    with pytest.raises(DataError, match=f"made under other conditions .*{words}"):
        run(Model(), images, labels, path, **change)
    assert path.read_bytes() == before


def test_other_pictures_labels_and_models_are_refused(images, labels, tmp_path):
    path = tmp_path / "r.json"
    run(Model(), images, labels, path)
    with pytest.raises(DataError, match="images sha256"):
        run(Model(), 255 - images, labels, path)
    with pytest.raises(DataError, match="images sha256"):
        run(Model(), images, 3 - labels, path)
    with pytest.raises(DataError, match="models n: none there, abc here"):
        robustness_seeds(
            {"m": Model(), "n": Model()},
            images,
            labels,
            seeds=(0, 1),
            corruptions=SOME,
            record=path,
            digests={"m": "abc", "n": "abc"},
        )


def test_a_wrong_argument_leaves_no_record(images, labels, tmp_path):
    for change in ({"constants": "svhn"}, {"seeds": (-1,)}, {"digests": None}, {"digests": {"n": "abc"}}):
        with pytest.raises(ValueError, match=r"`(constants|seed|digests)`"):
            run(Model(), images, labels, tmp_path / "r.json", **change)
    assert not list(tmp_path.iterdir())


def damaged(content, what):
    models = content["results"]["0"]["contrast"]
    if what == "format":
        content["format"] = "other/1"
    elif what == "bit":
        models["m"]["right"][2] = ("A" if models["m"]["right"][2][0] != "A" else "w") + models["m"]["right"][2][1:]
    elif what == "row":
        models["m"]["right"].pop()
    elif what == "letters":
        models["m"]["right"][0] = "?!"
    elif what == "model":
        del models["m"]
    elif what == "corruption":
        content["results"]["0"]["rain"] = models
    elif what == "results":
        content["results"] = 5
    return json.dumps(content)


@pytest.mark.parametrize("what", ["format", "bit", "row", "letters", "model", "corruption", "results"])
def test_damage_is_told(images, labels, tmp_path, what):
    path = tmp_path / "r.json"
    run(Model(), images, labels, path)
    path.write_text(damaged(json.loads(path.read_text()), what))
    with pytest.raises(DataError, match="not the record of an evaluation" if what == "format" else "is damaged"):
        run(Model(), images, labels, path)


def test_a_file_that_is_no_record_is_left_alone(images, labels, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("dear diary")
    with pytest.raises(DataError, match=r"notes\.txt cannot be read"):
        run(Model(), images, labels, path)
    assert path.read_text() == "dear diary"
    with pytest.raises(DataError, match="there is no directory"):
        EvaluationRecord(tmp_path / "none" / "r.json", {"models": {}}, 5, 13)
