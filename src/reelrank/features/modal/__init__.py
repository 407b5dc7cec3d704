"""Vectors of an item's modalities, through the entrances of METHODS §8.2; every row names its source.

Raw media and texts need the extras ``[media]`` and ``[minilm]``; nothing here imports them, or torch, before they are asked for.
"""

from reelrank.features.modal.assemble import item_modal
from reelrank.features.modal.options import AudioOptions, ModalOptions, TextOptions, VisualOptions
from reelrank.features.modal.proxy import ProxyOptions, metadata_proxy
from reelrank.features.modal.rows import pooled_vectors
from reelrank.features.modal.stored import synthetic_item_modal

__all__ = [
    "AudioOptions",
    "ModalOptions",
    "ProxyOptions",
    "TextOptions",
    "VisualOptions",
    "item_modal",
    "metadata_proxy",
    "pooled_vectors",
    "synthetic_item_modal",
]
