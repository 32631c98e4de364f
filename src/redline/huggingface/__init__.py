"""Decoder-only models of Hugging Face's transformers, with norm strategies and taps at their parts."""

from redline.huggingface.model import HuggingFace

__all__ = ["HuggingFace"]
