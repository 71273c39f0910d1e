"""The paper in miniature (arXiv 2605.12484): its experiments on an embedded model, and each claim with a verdict.

`experiments` runs what is missing and can be stopped at any time; `write_page` reads what the runs recorded. A claim is
reproduced where our interval, over seeds and paired by seed, lies on the paper's side of the line that the claim names.
"""

from fst_bench.analysis.paper.experiments import experiments
from fst_bench.analysis.paper.page import write_page

__all__ = ["experiments", "write_page"]
