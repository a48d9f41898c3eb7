"""Reduced sampling: the published schedules with exact batches, and a sampler that neither loses nor repeats images."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from seedcnn.data.pictures.samples import Order
from seedcnn.errors import ConfigError, TrainingError
from seedcnn.sampling import ReducedBatchSampler, full_batches, predicted_time_ratio
from seedcnn.sampling.schedules import MADE_FOR, SETTINGS, SamplingConfig, describe, epoch_ratios, setting
from seedcnn.sampling.theory import batches, log10_missing_probability, missing_probability

ROWS = json.loads((Path(__file__).parent / "sampling_schedules.json").read_text())


def row_id(row):
    return f"{row['dataset']}-{row['setting']}"


def place(row):
    return row["samples"], row["batch_size"]


# The published rows


def test_there_are_thirteen_rows_and_every_setting_is_among_them():
    assert len(ROWS) == 13
    assert {row["setting"] for row in ROWS} == set(SETTINGS) == set(MADE_FOR)
    assert {(row["setting"], row["epochs"]) for row in ROWS} == {(s, n) for s in SETTINGS for n in MADE_FOR[s]}


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_batches_of_every_epoch_are_those_of_the_published_row(row):
    ratios = SETTINGS[row["setting"]].ratios(row["epochs"])
    counts = [batches(*place(row), ratio) for ratio in ratios]
    assert counts == [count for count, epochs in row["batches"] for _ in range(epochs)]
    assert full_batches(*place(row)) == row["batches_full"]
    assert ReducedBatchSampler(*place(row), ratios).batches_per_epoch == counts


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_stages_have_the_published_numbers_of_epochs(row):
    config = SETTINGS[row["setting"]]
    marked = dataclasses.replace(config, alphas=(0.5, 0.25, 0.75), squeeze=0.5)
    ratios = [] if config == SamplingConfig.flat(config.alphas[0]) else marked.ratios(row["epochs"])
    counted = [ratios.count(Fraction(n, 8)) for n in (4, 2, 1, 6)]
    assert counted == row["stage_epochs"] or (not ratios and row["stage_epochs"] == [row["epochs"], 0, 0, 0])


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_predictions_are_those_of_the_published_row(row):
    ratios = SETTINGS[row["setting"]].ratios(row["epochs"])
    assert predicted_time_ratio(ratios) == pytest.approx(row["time_ratio"], abs=5e-7)
    assert predicted_time_ratio(ratios, *place(row)) == pytest.approx(row["time_ratio_by_batches"], abs=5e-7)
    for key, at in (("log10_missing", ()), ("log10_missing_by_batches", place(row))):
        expected = -math.inf if row[key] is None else row[key]
        assert log10_missing_probability(ratios, *at) == pytest.approx(expected, abs=5e-5)
        assert missing_probability(ratios, *at) == pytest.approx(10**expected, rel=2e-4)


def test_the_texts_own_probabilities():
    """Eq. 7a and 7b."""
    for ratio, expected in ((0.8, 1.3292e-84), (0.618, 7.0405e-51)):
        assert missing_probability([ratio] * 120) == pytest.approx(expected, rel=1e-4)


# Schedules


def test_bottlenecks_begin_squeezed_and_end_full_where_five_divides():
    ratios = epoch_ratios(14, (0.5, 0.9, 0.1), (Fraction(1, 7), Fraction(1, 7)), squeeze=Fraction(1, 3))
    full, squeezed = Fraction(9, 10), Fraction(3, 10)
    assert ratios == [Fraction(1, 2)] * 2 + ([squeezed] * 4 + [full]) * 2 + [Fraction(1, 10)] * 2
    assert epoch_ratios(8, (0.5, 0.9, 0.1), (0.125, 0), 0.5)[-3:] == [full, Fraction(9, 20), Fraction(9, 20)]
    assert epoch_ratios(6, (1, 0.5, 1), (0.5, 0), 0.5, internal=1) == [1, 1, 1, Fraction(1, 4), Fraction(1, 2), 0.25]


def test_floats_are_their_shortest_decimal():
    assert epoch_ratios(2, (0.7,) * 3) == [Fraction(7, 10)] * 2
    assert int(0.7 * 90) == 62
    assert batches(90, 1, 0.7) == 63
    assert batches(50000, 128, Fraction(1, 391)) == 1


def test_flat_is_a_special_case():
    flat = SamplingConfig.flat(0.618).ratios(9)
    assert flat == [Fraction(618, 1000)] * 9 == SamplingConfig((0.618,) * 3, (0, 1), squeeze=0.5).ratios(9)
    assert flat == SamplingConfig((0.618,) * 3, (1 / 3, 1 / 3), squeeze=1).ratios(9)
    assert flat == SamplingConfig((0.618,) * 3, (0, 0), squeeze=1).ratios(9)


@given(st.integers(1, 60), st.fractions(0, 1), st.fractions(0, 1))
def test_shares_that_fit_never_take_an_epoch_too_many(epochs, first, share):
    third = (1 - first) * share
    assert len(epoch_ratios(epochs, (0.5, 0.5, 0.25), (first, third))) == epochs


@pytest.mark.parametrize("alpha", [0, -0.1, 1.0001, float("nan"), float("inf")])
def test_ratios_outside_0_to_1_are_refused(alpha):
    for alphas in ((alpha, 0.5, 0.5), (0.5, alpha, 0.5), (0.5, 0.5, alpha)):
        with pytest.raises(ValueError, match=r"`alphas\[\d\]` \(=.*\) must be"):
            epoch_ratios(10, alphas)
        with pytest.raises(ValueError, match=r"`alphas\[\d\]` \(=.*\) must be"):
            SamplingConfig(alphas)
    with pytest.raises(ValueError, match=r"`ratio` \(=.*\) must be"):
        batches(100, 10, alpha)
    with pytest.raises(ValueError, match=r"`squeeze` \(=.*\) must be"):
        SamplingConfig((0.5,) * 3, squeeze=alpha)


def test_schedules_that_cannot_be():
    cases = {
        r"N1 = 0.*`?squeeze=1": lambda: epoch_ratios(30, (0.8,) * 3, (0, 0.5), 0.5),
        r"`gammas` \(=\(0.8, 0.6\)\) leave -4 epochs of 10": lambda: epoch_ratios(10, (0.8,) * 3, (0.8, 0.6)),
        r"`gammas` \(=\(-0.5, 0.5\)\) must be in \[0, 1\]": lambda: epoch_ratios(10, (0.8,) * 3, (-0.5, 0.5)),
        r"`gammas` .*shares of stages 1 and 3": lambda: epoch_ratios(10, (0.8,) * 3, (0.3, 0.3, 0.4)),
        r"`alphas` .*stages 1, 2 and 3": lambda: epoch_ratios(10, (0.8, 0.8)),
        r"`epochs` \(=0\)": lambda: epoch_ratios(0, (0.8,) * 3),
        r"`internal` \(=0\)": lambda: epoch_ratios(10, (0.8,) * 3, internal=0),
        r"`gammas` .*leave": lambda: SamplingConfig((0.8,) * 3, (0.6, 0.6)),
    }
    for words, call in cases.items():
        with pytest.raises(ValueError, match=words):
            call()
    for call in (
        lambda: epoch_ratios(10, ("0.8",) * 3),
        lambda: epoch_ratios(10, (True, 1, 1)),
        lambda: epoch_ratios(2.5, (1, 1, 1)),
        lambda: SamplingConfig((Fraction(1, 2), 0.5, 0.5)),
        lambda: batches(100.0, 10, 0.5),
    ):
        with pytest.raises(TypeError, match=r"must be|holds floats"):
            call()


def test_settings_by_name():
    assert setting("R2_1") is SETTINGS["R2_1"]
    with pytest.raises(ConfigError, match=r"unknown sampling setting 'R2-1'; did you mean R2_1"):
        setting("R2-1")


def test_configs_survive_json():
    for config in SETTINGS.values():
        assert SamplingConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


# Predictions


def test_time_ratio_with_a_short_last_batch():
    """By hand: 10 images in batches of 4, T1 = T0 / 2; epochs with 3 and with 1 batches."""
    assert predicted_time_ratio([1, 0.5], 10, 4, last_batch=0.5) == (2.5 + 1) / (2 * 2.5)
    assert predicted_time_ratio([1, 0.5], 10, 4, drop_last=True) == (2 + 1) / 4
    low, high = (predicted_time_ratio([0.8], 50000, 128, last_batch=share) for share in (1, 0))
    assert (low, high) == (312 / 391, 312 / 390)  # Eq. 9
    with pytest.raises(ValueError, match="`last_batch`"):
        predicted_time_ratio([1], 10, 4, last_batch=1.5)
    with pytest.raises(ValueError, match="single batch"):
        predicted_time_ratio([1], 10, 10, last_batch=0)


def test_missing_probability_by_the_pictures_really_seen():
    """By hand: 10 images in batches of 4; half of 3 batches is 1 batch, with 4 images."""
    assert missing_probability([0.5, 0.5]) == 0.25
    assert missing_probability([0.5, 0.5], 10, 4) == pytest.approx(0.6**2)
    assert missing_probability([0.5, 1], 10, 4) == 0
    assert missing_probability([0.5, 1], 10, 4, drop_last=True) == pytest.approx(0.6 * 0.2)
    assert missing_probability([1, 1], 11, 4, world_size=2) == pytest.approx((1 / 11) ** 2)
    assert log10_missing_probability([0.99] * 400) == pytest.approx(-800)
    assert missing_probability([0.99] * 400) == 0


def test_predictions_of_nothing_are_refused():
    for function in (predicted_time_ratio, missing_probability):
        with pytest.raises(ValueError, match="at least one epoch"):
            function([])
        with pytest.raises(ValueError, match="must be given together"):
            function([0.5], 100)
        with pytest.raises(ValueError, match="leaves none"):
            function([0.25], 3, 1)


def test_the_description_says_it_all():
    plan = describe(SETTINGS["R3"], 120, 50000, 128)
    assert plan.runs[0] == (Fraction(4, 5), 312, 40)
    assert plan.runs[-1] == (Fraction(1, 4), 97, 20)
    text = str(plan)
    for words in ("52 at 0.8 (312), 48 at 0.64 (250), 20 at 0.25 (97)", "0.6429", "0.6443", "1.05e-60", "7.20e-61"):
        assert words in text
    assert "never drawn: 0 (0 by formula)" in str(describe(SETTINGS["R2_1"], 120, 50000, 128))
    two = describe(SETTINGS["R3"], 120, 50000, 64, world_size=2)
    assert (two.runs, two.time_ratio_by_batches) == (plan.runs, plan.time_ratio_by_batches)
    assert describe(SETTINGS["R3"], 120, 50000, 128, drop_last=True).batches_full == 390


# The sampler


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    return drawn


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 12),
    st.integers(1, 4),
    st.booleans(),
    st.fractions(Fraction(1, 20), 1),
    st.data(),
)
def test_every_rank_has_as_many_batches_and_no_picture_comes_twice(samples, size, world, drop_last, ratio, data):
    try:
        expected = batches(samples, size, ratio, drop_last, world)
    except ValueError:
        with pytest.raises(ValueError, match=r"leaves none|`samples`"):
            ReducedBatchSampler(samples, size, [ratio], drop_last=drop_last, world_size=world)
        return
    drawn = [
        list(ReducedBatchSampler(samples, size, [ratio], drop_last=drop_last, rank=rank, world_size=world))
        for rank in range(world)
    ]
    assert [len(batches) for batches in drawn] == [expected] * world
    for step in zip(*drawn, strict=True):
        assert len({len(batch) for batch in step}) == 1
        assert 1 <= len(step[0]) <= size
    assert all(len(batch) == size for batches in drawn for batch in batches[:-1])
    pictures = [index for batch in itertools.chain(*drawn) for index in batch]
    assert len(set(pictures)) == len(pictures)
    assert set(pictures) <= set(range(samples))
    if ratio == 1 and not drop_last:
        assert samples - len(pictures) < world


def test_ratio_1_sees_every_picture_and_keeps_the_short_batch():
    drawn = epoch_of(ReducedBatchSampler(50, 8, [1]), 0)
    assert sorted(itertools.chain(*drawn)) == list(range(50))
    assert [len(batch) for batch in drawn] == [8] * 6 + [2]
    assert [len(batch) for batch in epoch_of(ReducedBatchSampler(50, 8, [1], drop_last=True), 0)] == [8] * 6


def test_fewer_batches_are_the_first_ones_of_the_same_order():
    whole, half = (epoch_of(ReducedBatchSampler(50, 8, [1, ratio], seed=3), 1) for ratio in (1, 0.5))
    assert half == whole[:3]


def test_processes_share_the_batches_of_a_single_one():
    single = epoch_of(ReducedBatchSampler(100, 12, [0.7], seed=5), 0)
    ranks = [epoch_of(ReducedBatchSampler(100, 4, [0.7], seed=5, rank=rank, world_size=3), 0) for rank in range(3)]
    assert [set(batch) for batch in single] == [set(itertools.chain(*step)) for step in zip(*ranks, strict=True)]


def test_order_depends_on_seed_and_epoch_alone():
    make = lambda seed: ReducedBatchSampler(64, 8, [0.5] * 3, seed=seed)  # noqa: E731
    sampler = make(1)
    first = [epoch_of(sampler, epoch) for epoch in range(3)]
    torch.manual_seed(99)
    assert epoch_of(make(1), 2) == first[2]  # as after a resume
    assert len({str(drawn) for drawn in (*first, epoch_of(make(2), 0))}) == 4


def test_the_order_is_that_of_the_folder_loaders():
    order = Order(40, True, 7, 0, 1)
    order.epoch = 2
    drawn = epoch_of(ReducedBatchSampler(40, 8, [1] * 3, seed=7), 2)
    assert list(itertools.chain(*drawn)) == [index for _, index in order]


@pytest.mark.parametrize("workers", [0, 1])
def test_it_drives_a_data_loader(workers):
    sampler = ReducedBatchSampler(20, 4, [0.6, 1])
    data = TensorDataset(torch.arange(20))
    loader = DataLoader(data, batch_sampler=sampler, num_workers=workers)
    for epoch, count in ((0, 3), (1, 5)):
        sampler.set_epoch(epoch)
        drawn = [batch.tolist() for (batch,) in loader]
        assert len(loader) == count
        assert drawn == epoch_of(ReducedBatchSampler(20, 4, [0.6, 1]), epoch)
    with pytest.raises(TrainingError, match="call set_epoch"):
        list(loader)


def test_an_epoch_is_not_drawn_twice_by_mistake():
    sampler = ReducedBatchSampler(20, 4, [0.5, 0.5])
    first = list(sampler)
    with pytest.raises(TrainingError, match="epoch 0 of the sampling schedule was drawn already; call set_epoch"):
        next(iter(sampler))
    assert epoch_of(sampler, 0) == first


def test_samplers_that_cannot_be():
    good = {"samples": 20, "batch_size": 4, "ratios": [0.5]}
    for change, words in (
        ({"samples": 0}, r"`samples` \(=0\) must be at least 1"),
        ({"batch_size": 0}, r"`batch_size` \(=0\)"),
        ({"ratios": []}, "at least one epoch"),
        ({"ratios": [0.5, 1.5]}, r"`ratio` \(=1.5\) must be in \(0, 1\]"),
        ({"ratios": [0.1]}, r"`ratio` \(=0.1\) of 5 batches leaves none"),
        ({"batch_size": 21, "drop_last": True}, r"`samples` \(=20\) must be at least `batch_size` \(=21\)"),
        ({"samples": 2, "world_size": 3}, r"`samples` \(=2\) must be at least `world_size` \(=3\)"),
        ({"rank": 2, "world_size": 2}, r"`rank` \(=2\) must be below `world_size` \(=2\)"),
        ({"rank": -1}, r"`rank` \(=-1\)"),
        ({"seed": -1}, r"`seed` \(=-1\)"),
        ({"seed": 2**64}, r"`seed` .* must be in"),
    ):
        with pytest.raises(ValueError, match=words):
            ReducedBatchSampler(**{**good, **change})
    sampler = ReducedBatchSampler(**good)
    for epoch in (1, -1):
        with pytest.raises(ValueError, match=r"`epoch` \(=-?1\)"):
            sampler.set_epoch(epoch)
