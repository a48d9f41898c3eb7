"""Networks that meet a budget: a form for each layer, and the narrowed vanilla network to compare with."""

from __future__ import annotations

from seedcnn.plan.comparison import Compared, Comparison, compare
from seedcnn.plan.costs import Costs, tensor_bytes
from seedcnn.plan.forms import FORMS, find_forms
from seedcnn.plan.knapsack import choose
from seedcnn.plan.narrow import narrow_to_macs, narrowed_network, narrowed_widths, widths_in_words
from seedcnn.plan.planner import plan
from seedcnn.plan.result import BUDGETS, Budget, LayerPlan, Plan, read_plan
from seedcnn.plan.sensitivity import Calibration

__all__ = [
    "BUDGETS",
    "FORMS",
    "Budget",
    "Calibration",
    "Compared",
    "Comparison",
    "Costs",
    "LayerPlan",
    "Plan",
    "choose",
    "compare",
    "find_forms",
    "narrow_to_macs",
    "narrowed_network",
    "narrowed_widths",
    "plan",
    "read_plan",
    "tensor_bytes",
    "widths_in_words",
]
