"""Settings of `train`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from acclimate.configs.checks import check_above, check_at_least, check_fraction
from acclimate.errors import UsageError
from acclimate.types import Sides

TaskSampling: TypeAlias = Literal["proportional", "round-robin", "temperature"]
Shard: TypeAlias = Literal["none", "fsdp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """From examples to an adapter."""

    sides: Sides = "both"
    """both: queries and documents are adapted; query: documents stay with the base, an existing index stays valid."""
    full: bool = False
    """Train every weight instead of an adapter."""
    start_adapter: str | None = None
    """Adapter (a run, or its folder) of the same base, rank and targets whose matrices the training goes on from."""
    rank: int = 16
    """Rank of the LoRA matrices."""
    alpha: float | None = None
    """LoRA scaling: the update is multiplied by alpha / rank; equal to the rank if not given."""
    lora_dropout: float = 0.0
    """Dropout on the input of the LoRA matrices."""
    targets: tuple[str, ...] = ("all-linear",)
    """Linear layers that get LoRA: all-linear, or (endings of) module names such as query,key,value."""
    group_size: int = 2
    """Documents of each example in a pass: its positive, and group_size - 1 drawn from its mined or given negatives."""
    epochs: float = 2.0
    """Passes over the training examples."""
    batch_size: int = 128
    """Examples per step; with InfoNCE all other documents of the batch are negatives."""
    remine_steps: int | None = None
    """Every so many steps the negatives are mined again, with the model as it is then; never if not given."""
    task_sampling: TaskSampling = "proportional"
    """Which of several datasets a step is taken from: proportional (every example once in a pass), round-robin (in
    turns), temperature (in proportion to size ** (1 / sampling_temperature)); the steps in all are the same."""
    sampling_temperature: float = 2.0
    """With task_sampling = temperature: 1 is proportional, a higher one gives small datasets more steps."""
    learning_rate: float | None = None
    """Peak learning rate; chosen by the size of the model if not given."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    warmup_fraction: float = 0.1
    """Share of the steps over which the learning rate rises, before it falls as a cosine."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    activation_memory_gb: float | None = None
    """Memory for one step's activations; a batch that needs more is computed in two passes (GradCache). 2 if not given,
    on CUDA a quarter of the GPU's memory."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    compile_layers: bool = False
    """Compile the transformer's layers (torch.compile), on CUDA only: a minute before the first step, fewer kernels in
    each."""
    shard: Shard = "none"
    """fsdp: several processes hold a part of each weight (FSDP2), for models that do not fit on one device; none: each
    holds all. Results and checkpoints are the same; see docs/devices.md. No effect on one process."""
    eval_steps: int | None = None
    """Steps between evaluations on dev; a quarter of the training if not given."""
    dev_documents: int | None = None
    """Documents that dev queries are ranked against during training: the relevant, the hardest, and a sample.
    2,000 if not given, fewer where the training is short, so that watching it costs a fraction of it."""
    patience: int = 3
    """Stop after this many evaluations without a better dev NDCG@10."""
    checkpoint_steps: int | None = None
    """Steps between checkpoints to resume from; a tenth of the training, at most 50, if not given."""

    def __post_init__(self) -> None:
        for name in ("rank", "group_size", "batch_size", "patience"):
            check_at_least(name, getattr(self, name), 1)
        for name in ("remine_steps", "checkpoint_steps", "dev_documents", "eval_steps"):
            if (value := getattr(self, name)) is not None:
                check_at_least(name, value, 1)
        for name in ("sampling_temperature", "epochs", "max_grad_norm"):
            check_above(name, getattr(self, name), 0.0)
        for name in ("learning_rate", "activation_memory_gb"):
            if (value := getattr(self, name)) is not None:
                check_above(name, value, 0.0)
        check_fraction("warmup_fraction", self.warmup_fraction)
        check_fraction("lora_dropout", self.lora_dropout)
        if self.full and self.sides == "query":
            raise UsageError("--full and --sides query exclude each other", fix="Train an adapter for the query side.")
        if self.full and self.start_adapter is not None:
            raise UsageError("--full and --start-adapter exclude each other", fix="Train an adapter to go on from one.")
        if self.remine_steps is not None and self.group_size == 1:
            raise UsageError(
                "remine_steps is given, and group_size = 1 takes no negatives", fix="Leave one of them out."
            )
        if not self.targets:
            raise UsageError("targets is empty", possible="all-linear, or endings of module names")
