"""AdamW for the torch backend, on float32 weights whatever the precision of the model.

At the learning rates of RL an update in bfloat16 is smaller than the spacing of bfloat16 numbers, so it would be
rounded away: weight 1.0 and a step of 1e-6 give 1.0. The float32 copies ("master weights") add such steps up, and the
model holds their rounding.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from fst_bench.policy.settings import PolicySettings


class MasterAdamW:
    """AdamW on the model's parameters; where these are not in float32, on float32 copies with float32 gradients."""

    def __init__(self, model: nn.Module, settings: PolicySettings):
        self.parameters = dict(model.named_parameters())
        self.low_precision = settings.dtype != "float32"
        self.masters = {
            name: nn.Parameter(p.detach().float()) if self.low_precision else p for name, p in self.parameters.items()
        }
        self.adamw = torch.optim.AdamW(
            self.masters.values(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True if settings.device == "cuda" else None,
        )
        if self.low_precision:
            for name, p in self.parameters.items():
                p.register_post_accumulate_grad_hook(self._gradient_mover(self.masters[name]))

    @staticmethod
    def _gradient_mover(master: nn.Parameter) -> Callable[[Tensor], None]:
        """Return a hook that adds a parameter's gradient to its master's, in float32, and drops it."""

        def hook(p: Tensor) -> None:
            assert p.grad is not None
            master.grad = p.grad.float() if master.grad is None else master.grad.add_(p.grad)
            p.grad = None

        return hook

    def zero_grad(self) -> None:
        self.adamw.zero_grad(set_to_none=True)

    def clip(self, max_grad_norm: float) -> Tensor:
        """Scale the gradient to a norm of at most `max_grad_norm`, and return its norm before that."""
        return nn.utils.clip_grad_norm_(self.masters.values(), max_grad_norm)

    @torch.no_grad()
    def step(self) -> None:
        self.adamw.step()
        self._round_into_model()

    @torch.no_grad()
    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take these weights, and forget the moments."""
        self.adamw.state.clear()
        for name, master in self.masters.items():
            master.copy_(weights[name])
        self._round_into_model()

    def state(self) -> dict[str, Tensor]:
        """Return everything but the model's own weights, flat: `name/key` -> tensor, for safetensors.

        Keys are AdamW's, and `master` for float32 copies. Empty before the first step in float32.
        """
        names = list(self.masters)
        found = {
            f"{names[i]}/{key}": value
            for i, moments in self.adamw.state_dict()["state"].items()
            for key, value in moments.items()
        }
        if self.low_precision:
            found |= {f"{name}/master": master.detach() for name, master in self.masters.items()}
        return found

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` returned."""
        index = {name: i for i, name in enumerate(self.masters)}
        moments: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for path, value in state.items():
            name, _, key = path.rpartition("/")
            if key == "master":
                self.masters[name].copy_(value)
            else:
                moments[index[name]][key] = value
        self.adamw.load_state_dict(self.adamw.state_dict() | {"state": dict(moments)})
        self._round_into_model()

    def _round_into_model(self) -> None:
        if self.low_precision:
            for name, p in self.parameters.items():
                p.copy_(self.masters[name])
