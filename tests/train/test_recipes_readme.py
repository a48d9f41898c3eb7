"""The recipes of the public README have the options of its commands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seedcnn.train import find_recipe

MOBILE = ("mobilenetv3_gnl_large_100", "mobilenetv2_gnl_100", "efficientnet_gnl_lite0", "efficientnetv2_gnl_s")
MOBILE = (*MOBILE, "efficientnet_gnl_es")


@pytest.mark.parametrize("name", MOBILE)
def test_mobile_networks(name):
    config = find_recipe(f"groupnl_readme:{name}")
    assert (config.model, config.optimizer, config.opt_eps) == (name, "rmsproptf", 0.001)
    assert (config.lr, config.weight_decay, config.warmup_lr) == (0.064, 1e-5, 1e-6)
    v3 = name.startswith("mobilenetv3")
    assert (config.epochs, config.decay_rate) == ((600, 0.973) if v3 else (450, 0.97))
    assert config.lr_noise == ((0.42, 0.9) if v3 else ())
    assert (config.schedule, config.decay_epochs, config.cooldown_epochs) == ("step", (2.4,), 0)
    assert config.input_size == (288 if name == "efficientnetv2_gnl_s" else 0)


def test_the_papers_runs_are_those_of_the_readme_without_the_epochs_after_the_schedule():
    script, paper = find_recipe("groupnl_readme:gnl_resnet101"), find_recipe("groupnl_imagenet:groupnl_300")
    assert (script.epochs, script.cooldown_epochs, script.optimizer) == (310, 10, "adamw")
    formula = {**script.model_options, "variant": "paper"}
    assert paper == replace(script, epochs=300, cooldown_epochs=0, model_options=formula)
    short = find_recipe("groupnl_imagenet:groupnl_10")
    assert short == replace(paper, epochs=10)
