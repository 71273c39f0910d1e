"""Metrics: pure functions of raw evaluation rows, usable without the harness.

Every number is signed; a missing cell, a NaN or an unknown name is a ValueError that names it, never a zero.
"""

from .asymptote import Asymptote, asymptote_difference, fit_asymptote
from .drift import Drift, token_kl
from .efficiency import Ratio, Reached, efficiency_ratio, samples_to_threshold
from .intervals import Estimate, paired_difference, stratified_bootstrap
from .probed import difference, interaction
from .summary import summarise
from .transfer import Transfer, transfer

__all__ = [
    "Asymptote", "Drift", "Estimate", "Ratio", "Reached", "Transfer", "asymptote_difference", "difference", "efficiency_ratio", "fit_asymptote",
    "interaction", "paired_difference", "samples_to_threshold", "stratified_bootstrap", "summarise", "token_kl", "transfer",
]  # fmt: skip
