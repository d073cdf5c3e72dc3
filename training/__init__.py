"""Sayso's training side: corpus, fine-tuning, evaluation and export."""
