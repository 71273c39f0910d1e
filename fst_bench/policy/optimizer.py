"""AdamW for the torch backend, on float32 weights whatever the precision of the model.

At the learning rates of RL an update in bfloat16 is smaller than the spacing of bfloat16 numbers, so it would be rounded away: weight 1.0 and a
step of 1e-6 give 1.0. The float32 copies ("master weights") add such steps up, and the model holds their rounding.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from .settings import PolicySettings


class MasterAdamW:
    """AdamW on the model's parameters; where these are not in float32, on float32 copies with float32 gradients."""

    def __init__(self, model: nn.Module, settings: PolicySettings):
        self.parameters = dict(model.named_parameters())
        self.low = settings.dtype != "float32"
        self.masters = {name: nn.Parameter(p.detach().float()) if self.low else p for name, p in self.parameters.items()}
        self.adamw = torch.optim.AdamW(
            self.masters.values(), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay,
            fused=True if settings.device == "cuda" else None,
        )  # fmt: skip
        if self.low:
            for name, p in self.parameters.items():
                p.register_post_accumulate_grad_hook(self._moves_gradient_to(self.masters[name]))

    @staticmethod
    def _moves_gradient_to(master: nn.Parameter) -> Callable[[Tensor], None]:
        def hook(p: Tensor) -> None:
            assert p.grad is not None
            master.grad = p.grad.float() if master.grad is None else master.grad.add_(p.grad)
            p.grad = None

        return hook

    def zero_grad(self) -> None:
        self.adamw.zero_grad(set_to_none=True)

    def clip(self, largest: float) -> Tensor:
        """Scale the gradient to a norm of at most `largest`; its norm before that."""
        return nn.utils.clip_grad_norm_(self.masters.values(), largest)

    @torch.no_grad()
    def step(self) -> None:
        self.adamw.step()
        self._to_model()

    @torch.no_grad()
    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """These weights, without moments."""
        self.adamw.state.clear()
        for name, master in self.masters.items():
            master.copy_(weights[name])
        self._to_model()

    def state(self) -> dict[str, Tensor]:
        """Everything but the model's own weights: name/key -> tensor. Keys are AdamW's, and `master` for float32 copies."""
        names = {id(master): name for name, master in self.masters.items()}
        found = {f"{names[id(p)]}/{key}": value for p, state in self.adamw.state.items() for key, value in state.items()}
        return found | ({f"{name}/master": master.detach() for name, master in self.masters.items()} if self.low else {})

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        for key, value in state.items():
            name, _, part = key.rpartition("/")
            master = self.masters[name]
            if part == "master":
                master.copy_(value)
            else:
                kept_on = master.device if part != "step" or self.adamw.defaults["fused"] else value.device
                self.adamw.state[master][part] = value.to(kept_on)
        self._to_model()

    def _to_model(self) -> None:
        if self.low:
            for name, p in self.parameters.items():
                p.copy_(self.masters[name])
