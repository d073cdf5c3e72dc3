"""Fine-tuning: Hugging Face's Trainer over windows, with the best checkpoint by validation macro-F1."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import get_last_checkpoint

from serving.errors import SaysoError
from serving.labels import LABELS
from serving.windows import Windows
from training.calibration import Calibration, calibrated_scores
from training.config import Config
from training.data import Data, sentence_count
from training.metrics import macro_f1
from training.model import IGNORE, Network, Objective, freeze, new_network, parameter_groups, round_as_int8
from training.names import NameSwaps
from training.sampling import Collator, EncodedCorpus, Example, TrainingEpochs

_EVALUATION_BATCH = 16


@dataclass(frozen=True)
class ValidationLogits:
    """The validation sentences in order: ``voice`` (n, 5) and ``doubt`` (n, 2) logits, ``label`` indexes (n,)."""

    voice: NDArray[np.float64]
    doubt: NDArray[np.float64]
    label: NDArray[np.int64]

    @property
    def macro_f1(self) -> float:
        """The macro-F1 of the likeliest labels, before calibration."""
        predicted = calibrated_scores(self.voice, self.doubt, Calibration()).argmax(-1)
        return macro_f1([LABELS[i] for i in self.label], [LABELS[i] for i in predicted])


@dataclass(frozen=True)
class FineTuned:
    """What a training run leaves: the classifier with its best weights and how it got there."""

    network: Network
    windows: Windows
    validation: ValidationLogits
    history: list[dict[str, float]] = field(default_factory=list)
    speed: dict[str, float] = field(default_factory=dict)  # empty where training was resumed


def finetune(
    data: Data,
    config: Config,
    checkpoints: Path,
    *,
    resume: bool = False,
    start: Network | None = None,
    say: Callable[[str], None] = tqdm.write,
) -> FineTuned:
    """Return the network trained on ``data.train``, its best epoch chosen on ``data.validation``.

    Checkpoints are kept in ``checkpoints``; with ``resume`` training goes on from the last of them. ``start`` is
    a network to train on, in place of the pretrained encoder with new heads.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    network = start or new_network(
        config.encoder, dropout=config.dropout, encoder_dropout=config.encoder_dropout
    )
    if config.int8_rounding:
        round_as_int8(network.classifier)
    freeze(network.classifier, config.frozen_layers)
    _check_window_fits(config, network.encoder_config)
    windows = Windows(network.tokenizer, config.limits)
    swaps = NameSwaps(data.train) if config.name_swaps else None
    soft = data.teacher.soft_targets(data.train)
    epochs = TrainingEpochs(EncodedCorpus(data.train, windows, swaps, soft), config)
    reading = _List(EncodedCorpus(data.validation, windows).reading(context=config.context))
    trainer = _trainer(network, config, checkpoints, epochs, reading)
    trainer.add_callback(_Narrator(say))
    last = _last_checkpoint(checkpoints) if resume else None
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=last)
    seconds = time.monotonic() - started
    network.classifier.eval()
    return FineTuned(
        network=network,
        windows=windows,
        validation=read_validation(network, windows, data, config),
        history=[entry for entry in trainer.state.log_history if "eval_macro_f1" in entry],
        speed={} if resume else _speed(data, trainer.state.epoch or 0, seconds),
    )


def read_validation(network: Network, windows: Windows, data: Data, config: Config) -> ValidationLogits:
    """Return the logits of ``data.validation`` as the exported network has them, in fp32."""
    examples = _List(EncodedCorpus(data.validation, windows).reading(context=config.context))
    classifier = network.classifier.eval()
    device = next(classifier.parameters()).device
    parts = []
    for batch in DataLoader(examples, batch_size=_EVALUATION_BATCH, collate_fn=Collator(network.pad_id)):
        inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask", "pooling")}
        with torch.inference_mode():
            logits = classifier(**inputs)
        parts.append(_known(logits.voice.cpu().numpy(), logits.doubt.cpu().numpy(), batch["label"].numpy()))
    return ValidationLogits(*(np.concatenate(columns) for columns in zip(*map(astuple, parts), strict=True)))


def _speed(data: Data, epochs: float, seconds: float) -> dict[str, float]:
    """Return the seconds, evaluations included, and the corpus' sentences trained on in one of them."""
    rate = sentence_count(data.train) * epochs / seconds
    return {"seconds": round(seconds, 1), "sentences_per_second": round(rate, 1)}


def uses_bf16(setting: str) -> bool:
    """Return whether training computes in bfloat16: as set, or where the processor or GPU is fast at it."""
    if setting != "auto":
        return setting == "on"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def _trainer(
    network: Network, config: Config, checkpoints: Path, train: TrainingEpochs, validation: _List
) -> Trainer:
    objective = Objective(
        network.classifier,
        label_smoothing=config.label_smoothing,
        doubt_weight=config.doubt_weight,
        teacher_weight=config.teacher_weight if config.teacher_scores else 0.0,
    )
    steps = len(train) // config.batch_size // config.evaluations_per_epoch
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=_EVALUATION_BATCH,
        train_sampling_strategy="sequential",  # the order is made in TrainingEpochs
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        bf16=uses_bf16(config.bf16),
        seed=config.seed,
        eval_strategy="steps",
        eval_steps=max(1, steps),
        save_strategy="steps",
        save_steps=max(1, steps),
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="macro_f1",
        greater_is_better=True,
        logging_strategy="steps",
        logging_steps=max(1, steps // 4),
        remove_unused_columns=False,
        label_names=["voice", "doubt", "label"],
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
    )
    groups = parameter_groups(
        objective,
        encoder_rate=config.learning_rate,
        head_rate=config.head_learning_rate,
        decay=config.layer_decay,
    )
    trainer = Trainer(
        model=objective,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=Collator(network.pad_id),
        compute_metrics=_macro_f1_of,
        optimizers=(torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True), None),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=config.patience)],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Bar())
    return trainer


class _List(Dataset[Example]):
    def __init__(self, examples: list[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


class _Bar(ProgressCallback):
    """The progress bar without a raw line per log entry."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Leave the words to the narrator."""


class _Narrator(TrainerCallback):
    """Says one readable line per evaluation."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.best = 0.0
        self.loss = float("nan")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Any = None,
        **kwargs: Any,
    ) -> None:
        self.loss = float((logs or {}).get("loss", self.loss))

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        score = float((metrics or {})["eval_macro_f1"])
        mark = "  best so far" if score > self.best else ""
        self.best = max(self.best, score)
        self.say(
            f"epoch {state.epoch or 0:.2f}  step {state.global_step}/{state.max_steps}  training loss {self.loss:.3f}"
            f"  validation loss {metrics['eval_loss']:.3f}  macro-F1 {score:.4f}{mark}"
        )


def _known(voice: NDArray[Any], doubt: NDArray[Any], label: NDArray[Any]) -> ValidationLogits:
    """Return the logits of sentences without those of the padding."""
    known = label != IGNORE
    return ValidationLogits(voice[known].astype(np.float64), doubt[known].astype(np.float64), label[known])


def _macro_f1_of(output: Any) -> dict[str, float]:
    voice, doubt = output.predictions
    label = output.label_ids[2]
    return {"macro_f1": _known(voice, doubt, label).macro_f1}


def _last_checkpoint(checkpoints: Path) -> str:
    found = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    if found is None:
        raise SaysoError(f"{checkpoints}: no checkpoint to resume from; run without --resume")
    return str(found)


def _check_window_fits(config: Config, encoder_config: Any) -> None:
    positions = getattr(encoder_config, "max_position_embeddings", None)
    if positions is not None and encoder_config.model_type in (
        "roberta",
        "xlm-roberta",
        "camembert",
        "mpnet",
    ):
        positions -= encoder_config.pad_token_id + 1  # they count from the padding's number
    if positions is not None and config.max_tokens > positions:
        raise SaysoError(
            f"max_tokens: {config.max_tokens} exceeds the {positions} positions of encoder {config.encoder!r};"
            f" set it to {positions} or less"
        )
