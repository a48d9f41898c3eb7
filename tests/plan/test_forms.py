"""Names of forms."""

from __future__ import annotations

import re

import pytest

from seedcnn.convert import GhostConfig, GroupNLConfig
from seedcnn.errors import ConfigError
from seedcnn.plan import FORMS, find_forms


def test_the_controls_are_among_the_forms_and_stand_first():
    names = list(FORMS)
    first_seed_form = min(names.index(name) for name in names if name.startswith(("abs", "sine", "mono")))
    assert {"copy-r2", "dws", "ghost-r2", "cr"} <= set(names[:first_seed_form])
    assert find_forms(None) == FORMS


def test_options_are_read_by_their_types():
    names = ["groupnl:sparse=no:phi_range=(0,1)", "ghost:relu=off"]
    assert find_forms(names) == {
        names[0]: GroupNLConfig(phi_range=(0.0, 1.0)),
        names[1]: GhostConfig(relu=False),
    }
    with pytest.raises(ConfigError, match=re.escape("groupnl.sparse (='maybe') must be true or false")):
        find_forms(["groupnl:sparse=maybe"])


def test_a_method_with_options_is_a_form():
    name = "groupnl:reduction_ratio=8:nlf=abs:normalize=batch"
    assert find_forms([name, "dws"]) == {
        name: GroupNLConfig(reduction_ratio=8, nlf="abs", normalize="batch"),
        "dws": FORMS["dws"],
    }


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["abs-r3"], "unknown form 'abs-r3'; did you mean abs-r"),
        (["gost-r2"], "did you mean ghost-r"),
        (["groupnl:ratio=2"], "has no option 'ratio'"),
        ([":nlf=abs"], "the name of the method is missing"),
        (["groupnl:nlf"], "'nlf' must look like option=value"),
        ([], "no form to choose from"),
    ],
)
def test_mistakes_are_named(names, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        find_forms(names)
