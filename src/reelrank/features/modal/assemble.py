"""The modal embeddings of all items, each modality through its entrance.

Source: METHODS §8.2, §1.5 L2.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.features.modal.options import EntranceOptions, ModalOptions
from reelrank.features.modal.proxy import ProxyOptions, metadata_proxy
from reelrank.features.modal.stored import pre_extracted, raw_keys, synthetic_item_modal
from reelrank.tables import MODALITIES, ItemModal


def item_modal(
    items: pl.DataFrame,
    item_map: pl.DataFrame,
    train_item_ids: npt.NDArray[np.int32],
    options: ModalOptions,
    proxy: ProxyOptions,
    world_folder: Path | None = None,
) -> pl.DataFrame:
    """Rows of every item and modality.

    Args:
        items: ``Items``; ``item_id`` = row number.
        item_map: ``IdMap`` of the items.
        train_item_ids: items with a train row; what a proxy learns, it learns from these (L2). Encoders are frozen.
        options: the entrance of each modality.
        proxy: sizes of the metadata proxies.
        world_folder: modality files of a generated world, the entrance ``auto`` where there are any.

    Returns:
        ``ItemModal``: modalities in the order of ``MODALITIES``, in each one row per item, each row naming its source.

    Raises:
        FileNotFoundError: files or weights are not where the options say.
        ImportError: an entrance needs an extra that is not installed.
        ValueError: stored vectors or media do not fit the items.
    """
    makers: dict[str, Callable[[], pl.DataFrame]] = {
        "proxy": lambda: metadata_proxy(items, train_item_ids, proxy)
    }
    if world_folder is not None:
        folder = world_folder
        makers["synthetic"] = lambda: synthetic_item_modal(folder, item_map)
    made: dict[str, pl.DataFrame] = {}
    parts = []
    for modality in MODALITIES:
        chosen: EntranceOptions = getattr(options, modality)
        entrance: str = chosen.entrance
        if entrance == "auto":
            entrance = "proxy" if world_folder is None else "synthetic"
        if entrance == "pre_extracted":
            assert chosen.path is not None  # checked by the options
            parts.append(pre_extracted(chosen.path, item_map, modality, chosen.max_stored_tokens))
        elif entrance == "raw":
            parts.append(_raw(modality, items, item_map, options))
        else:
            if entrance not in made:
                made[entrance] = makers[entrance]()
            parts.append(made[entrance].filter(pl.col("modality") == modality))
    return ItemModal.conform(pl.concat(parts))


def _raw(
    modality: str, items: pl.DataFrame, item_map: pl.DataFrame, options: ModalOptions
) -> pl.DataFrame:
    """One modality encoded from texts or media; torch and the decoders are imported only here."""
    from reelrank.training.device import pick_device  # noqa: PLC0415 (see above)

    device = pick_device(options.device)
    try:
        if modality == "text":
            from reelrank.features.modal.text import encode_text  # noqa: PLC0415 (see above)

            return encode_text(items, options.text, device)
        from reelrank.features.modal.encode import (  # noqa: PLC0415 (see above)
            encode_audio,
            encode_visual,
        )
        from reelrank.features.modal.media import media_files  # noqa: PLC0415 (see above)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"entrance raw of {modality} needs {error.name}: pip install 'reelrank[media]'"
        ) from error
    keys = raw_keys(item_map.sort("dense_id"))
    if modality == "visual":
        visual = options.visual
        assert visual.path is not None and visual.weights is not None  # checked by the options
        files = media_files(visual.path, keys)
        return encode_visual(files, items.height, visual, visual.weights, device)
    audio = options.audio
    assert audio.path is not None and audio.weights is not None  # checked by the options
    files = media_files(audio.path, keys)
    return encode_audio(files, items.height, audio, audio.weights, device)
