"""Weights and networks from elsewhere: what fits is loaded, what does not is named."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from seedcnn.errors import ConfigError
from seedcnn.models.own import own_network, sha256_of
from seedcnn.models.weights import load_state, load_weights


def network(classes=3):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": {"model": s}}]
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_what_torch_loops_save_is_loaded(tmp_path, wrap, prefix):
    source, said = network(), []
    torch.save(wrap({f"{prefix}{name}": value for name, value in source.state_dict().items()}), tmp_path / "w.pth")
    model = network()
    load_weights(model, load_state(tmp_path / "w.pth", said.append), tmp_path / "w.pth", said.append)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values(), strict=True)
    )
    assert any("taken off" in text for text in said) == bool(prefix)


def test_safetensors_and_a_head_of_another_size(tmp_path):
    save_file(network(7).state_dict(), tmp_path / "w.safetensors")
    model, said = network(), []
    before = model[3].weight.clone()
    load_weights(model, load_state(tmp_path / "w.safetensors"), "w.safetensors", said.append)
    assert torch.equal(model[3].weight, before)
    assert said == ["w.safetensors: the head 3 is of another size ((7, 4) in the file, (3, 4) here); it starts anew"]


def test_other_networks_are_named_and_nothing_changes(tmp_path):
    state = network().state_dict()
    state["extra"] = torch.ones(1)
    del state["0.bias"]
    state["0.weight"] = torch.ones(9, 3, 3, 3)
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        ConfigError, match=r"1 missing: 0\.bias; 1 unexpected: extra; 1 of another shape: 0\.weight \(9,"
    ):
        load_weights(model, state, "w.pth")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_files_that_are_no_weights(tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"there is no file of weights .*none\.pth"):
        load_state(tmp_path / "none.pth")
    torch.save({"weights": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ConfigError, match="holds no weights that can be read safely"):
        load_state(tmp_path / "evil.pth")
    assert "code ran" not in capsys.readouterr().out
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(ConfigError, match=r"text\.pth (is not a file of weights|holds no weights)"):
        load_state(tmp_path / "text.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ConfigError, match="without tensors; it must hold a state_dict"):
        load_state(tmp_path / "empty.pth")


@pytest.mark.parametrize(
    ("source", "name", "options", "message"),
    [
        ("class Net(:", "Net", {}, r"net\.py is not valid Python: .*line 1"),
        ("raise RuntimeError('no GPU')", "Net", {}, r"net\.py cannot be run: RuntimeError: no GPU"),
        ("import sys; sys.exit(3)", "Net", {}, r"net\.py cannot be run: SystemExit: 3"),
        ("def Nett(): pass", "Net", {}, r"there is nothing to call by the name Net; did you mean Nett"),
        ("def Net(): return 3", "Net", {}, r"Net returns int; it must return an nn\.Module"),
        ("def Net(size): return size", "Net", {}, r"Net fails with \(\): TypeError: .*size"),
        ("def Net(): pass", "Net", {"width": 3}, r"Net fails with \(width=3\): TypeError"),
    ],
)
def test_networks_of_ones_own_that_do_not_build(tmp_path, source, name, options, message):
    (tmp_path / "net.py").write_text(source)
    with pytest.raises(ConfigError, match=message):
        own_network(f"{tmp_path / 'net.py'}:{name}", options)


def test_the_digest_is_the_files(tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\ndef net(): return nn.Linear(1, 1)\n")
    assert isinstance(own_network(f"{tmp_path / 'net.py'}:net"), nn.Linear)
    before = sha256_of(f"{tmp_path / 'net.py'}:net")
    (tmp_path / "net.py").write_text("# changed\n")
    assert sha256_of(f"{tmp_path / 'net.py'}:net") != before
    with pytest.raises(ConfigError, match=r"there is no file .*none\.py"):
        own_network(f"{tmp_path / 'none.py'}:net")
