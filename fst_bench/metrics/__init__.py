"""Metrics: pure functions of raw evaluation rows, usable without the harness.

Every number is signed; a missing cell, a NaN or an unknown name is a ValueError that names it, never a zero.
"""

from fst_bench.metrics.asymptote import Asymptote, asymptote_difference, fit_asymptote
from fst_bench.metrics.drift import Drift, least_kl, token_kl
from fst_bench.metrics.efficiency import THRESHOLDS, Ratio, Reached, efficiency_ratio, samples_to_threshold
from fst_bench.metrics.intervals import Estimate, holm, p_value, paired_difference, stratified_bootstrap, t_interval
from fst_bench.metrics.paired_curves import Curve, ThresholdRatio, matched_kl, ratios_at
from fst_bench.metrics.probed import difference, interaction
from fst_bench.metrics.summary import area, read_off, seen_so_far, summarise
from fst_bench.metrics.transfer import Transfer, transfer

__all__ = [
    "THRESHOLDS",
    "Asymptote",
    "Curve",
    "Drift",
    "Estimate",
    "Ratio",
    "Reached",
    "ThresholdRatio",
    "Transfer",
    "area",
    "asymptote_difference",
    "difference",
    "efficiency_ratio",
    "fit_asymptote",
    "holm",
    "interaction",
    "least_kl",
    "matched_kl",
    "p_value",
    "paired_difference",
    "ratios_at",
    "read_off",
    "samples_to_threshold",
    "seen_so_far",
    "stratified_bootstrap",
    "summarise",
    "t_interval",
    "token_kl",
    "transfer",
]
