"""Settings of images beside texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from acclimate.configs.checks import check_above, check_at_least, check_fraction
from acclimate.errors import UsageError

MAX_FRAMES = 64
Head: TypeAlias = Literal["linear", "mlp", "none"]
TowerSides: TypeAlias = Literal["image", "texts", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesConfig:
    """From images to vectors in the space of the texts."""

    image_model: str | None = None
    """The image encoder: a folder or hub id of transformers (CLIP, SigLIP, DINOv2, ViT …), or a folder with an ONNX
    graph. Where it is given, the data of adapt are images."""
    image_templates: tuple[str, ...] = ("{class}", "a photo of {class}", "{description}")
    """Texts of a class, made of what classes.json says of it; a template for a field that a class lacks is left out."""
    held_out_classes: int | None = None
    """Classes held out whole, drawn by the seed: what the test measures as unseen. A quarter if not given."""
    image_test_fraction: float = 0.2
    """Share of each class's images (of captions: of the sets that belong together) for the test, where no split is
    given."""
    image_dev_fraction: float = 0.1
    """The same for dev."""
    image_side: int = 288
    """Images are kept with at most this many pixels on the shorter side."""
    max_megapixels: int = 64
    """Images that claim more millions of pixels are rejected before they are decoded."""
    frames: int = 8
    """Frames that are drawn evenly from a video; its features are their mean."""
    head: Head = "mlp"
    """What maps an image's features into the texts' space: linear, or one hidden layer. none: they lie there already,
    because the texts' model is the image model itself (a CLIP or a SigLIP)."""
    head_width: int = 512
    """Size of the hidden layer."""
    head_dropout: float = 0.3
    """Share of the features that is left out at random in training."""
    image_epochs: float = 30.0
    """Passes over the training images."""
    image_batch_size: int = 256
    """Images per step."""
    image_learning_rate: float = 1e-3
    """Peak learning rate."""
    image_weight_decay: float = 0.01
    """AdamW's decoupled weight decay of the head."""
    image_temperature: float = 0.07
    """Temperature of InfoNCE at the start; it is learned."""
    image_lora: TowerSides | None = None
    """LoRA on the image model, the texts' model or both, instead of frozen ones. With image, the texts' vectors stay,
    and so does their index; with texts or both, they move, and an index has to be built again. Its rank and targets
    are those of trainings on texts."""
    image_negatives: int = 4
    """Hard negative texts per image and step, mined across both modalities; 0 switches mining off."""

    def __post_init__(self) -> None:
        for name in ("image_side", "max_megapixels", "head_width", "image_batch_size", "frames"):
            check_at_least(name, getattr(self, name), 1)
        if self.frames > MAX_FRAMES:
            raise UsageError(f"frames = {self.frames}", possible=f"1 to {MAX_FRAMES}")
        check_at_least("image_negatives", self.image_negatives, 0)
        if self.held_out_classes is not None:
            check_at_least("held_out_classes", self.held_out_classes, 0)
        for name in ("image_test_fraction", "image_dev_fraction", "head_dropout"):
            check_fraction(name, getattr(self, name))
        for name in ("image_epochs", "image_learning_rate", "image_temperature"):
            check_above(name, getattr(self, name), 0.0)
        if not self.image_templates:
            raise UsageError("image_templates is empty", possible='templates such as "a photo of {class}"')
