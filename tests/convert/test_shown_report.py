"""A report in a notebook: a table, and a short line."""

from __future__ import annotations

from torch import nn

from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.models import create_model


def test_a_report_is_a_table_and_a_short_line():
    report = convert_(create_model("resnet8_cifar"), GroupNLConfig())
    assert repr(report) == (
        "ConversionReport(GroupNL: replaced 8 convolutions, left 1 alone; "
        "learnable parameters 78,042 -> 40,218 (0.515))"
    )
    html = report._repr_html_()
    assert html.count("<tr>") == 1 + 8 + 1
    assert '<td>stages.0.0.conv1</td><td style="text-align: right">2,304</td>' in html
    assert "left: stem" in html
    assert html.endswith("<p>learnable parameters 78,042 -&gt; 40,218 (0.515)</p>")


def test_names_are_escaped():
    model = nn.Sequential()
    model.add_module("<b>", nn.Conv2d(16, 16, 3))
    html = convert_(model, GroupNLConfig(), filter_fn=lambda module, name: isinstance(module, nn.Conv2d))._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
