"""Splitting of timm's BatchNorm-with-activation modules, so that the norm can be folded."""

from __future__ import annotations

from torch import nn

__all__ = ["split_norm_act_"]

_PARTS = ("drop", "act")  # what timm.layers.BatchNormAct2d applies after the norm, in order


def split_norm_act_(model: nn.Module) -> nn.Module:
    """Replace each norm-and-activation module by a plain BatchNorm2d, its dropout and its activation, in place."""
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.BatchNorm2d) and all(part in module._modules for part in _PARTS):
                plain = nn.BatchNorm2d(
                    module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
                )
                plain.load_state_dict({k: v for k, v in module.state_dict().items() if "." not in k})
                split = nn.Sequential(plain, *(module.get_submodule(part) for part in _PARTS))
                setattr(parent, name, split.train(module.training))
    return model
