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
    """both: adapt queries and documents; query: adapt queries only, so an index of base vectors stays valid."""
    full: bool = False
    """Train all weights instead of an adapter."""
    start_adapter: str | None = None
    """Start from this adapter (a run, or its folder) instead of a new one; it must have the same base and rank. Unless
    targets are given, the layers that it has are trained."""
    rank: int = 16
    """Rank of the LoRA matrices."""
    alpha: float | None = None
    """LoRA scaling: the update is multiplied by alpha / rank. Equal to the rank if not given."""
    lora_dropout: float = 0.0
    """Dropout on the input of the LoRA matrices."""
    targets: tuple[str, ...] = ("all-linear",)
    """Linear layers that get LoRA: all-linear, or names of modules (or their endings), such as query,key,value."""
    group_size: int = 2
    """Documents per example in a pass: its positive, and group_size - 1 drawn from its mined or given negatives."""
    epochs: float = 2.0
    """Number of passes over the training examples."""
    batch_size: int = 128
    """Examples per step. With info-nce, all other documents of the batch are negatives."""
    remine_steps: int | None = None
    """Steps after which negatives are mined again, with the current model; never if not given."""
    task_sampling: TaskSampling = "proportional"
    """Which of several datasets a step takes its batch from. proportional: every example once per pass; round-robin: in
    turn; temperature: in proportion to size ** (1 / sampling_temperature). The number of steps is the same."""
    sampling_temperature: float = 2.0
    """task_sampling = temperature: 1 is proportional; higher values give small datasets more steps."""
    learning_rate: float | None = None
    """Peak learning rate; chosen by the size of the model's transformer (without word embeddings) if not given."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    warmup_fraction: float = 0.1
    """Share of the steps over which the learning rate rises; afterwards it falls as half a cosine."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    activation_memory_gb: float | None = None
    """Memory for one step's activations. A batch that needs more is computed in two passes (GradCache). If not given:
    2, or on CUDA a quarter of the GPU's memory."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    compile_layers: bool = False
    """Compile the transformer's layers (torch.compile), on CUDA only: costs a minute before the first step, then runs
    fewer kernels per step."""
    shard: Shard = "none"
    """fsdp: each of several processes holds a part of every weight (FSDP2), for models that do not fit on one device;
    none: each holds all weights. Results and checkpoints are the same (docs/devices.md). No effect on one process."""
    eval_steps: int | None = None
    """Steps between evaluations on dev; a quarter of the training if not given."""
    dev_documents: int | None = None
    """Number of documents that dev queries are ranked against during training: the relevant ones, the hardest, and a
    sample. If not given: 2,000, or fewer if the training is short, so that evaluation takes a small part of the
    time."""
    patience: int = 3
    """Stop after this many evaluations without a better score on dev (NDCG@10, or Spearman for pairs)."""
    checkpoint_steps: int | None = None
    """Steps between checkpoints to resume from. If not given: a tenth of the training, at most 50."""

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
