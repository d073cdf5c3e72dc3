"""The two-headed classifier: an encoder over windows, sentence pooling, a voice head and a doubt head."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig

from serving.artifact import ENCODER, TOKENIZER, WEIGHTS, read_manifest, read_verified
from serving.errors import SaysoError
from serving.labels import LABELS, VOICES, label_of
from training.encoders import encoder_source

IGNORE = -100  # the target of a padding sentence, and of a voice or doubt that a user's row does not have


class Logits(NamedTuple):
    """``voice`` (b, s, 5) and ``doubt`` (b, s, 2) logits of the sentences s of the windows b."""

    voice: Tensor
    doubt: Tensor


class SentenceClassifier(nn.Module):
    """Classifies each sentence of a window from the mean of its own tokens' last hidden states."""

    def __init__(self, encoder: nn.Module, hidden_size: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.voice_head = nn.Linear(hidden_size, len(VOICES))
        self.doubt_head = nn.Linear(hidden_size, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, pooling: Tensor) -> Logits:
        """Return the logits; ``pooling`` (b, s, t) holds each sentence's weights over the tokens.

        ``attention_mask`` (b, t) is 1 for tokens and 0 for padding; None where nothing is padded.
        """
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        sentences = self.dropout(torch.bmm(pooling.to(hidden.dtype), hidden))
        return Logits(self.voice_head(sentences), self.doubt_head(sentences))


class Objective(nn.Module):
    """A classifier with its training loss, in the form that the Trainer wants."""

    def __init__(
        self,
        classifier: SentenceClassifier,
        *,
        label_smoothing: float,
        doubt_weight: float,
        teacher_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.label_smoothing = label_smoothing
        self.doubt_weight = doubt_weight
        self.teacher_weight = teacher_weight

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pooling: Tensor,
        voice: Tensor,
        doubt: Tensor,
        label: Tensor,
        soft: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss and the logits. Targets are (b, s), ``IGNORE`` where there is none.

        The loss is the mean over sentences of: cross-entropy of the voice plus a weighted cross-entropy of the
        doubt; for a sentence that has only a label, the negative log of the label's derived score. Where ``soft`` (b,
        s, 4) holds a teacher's scores and not zeros, the weighted cross-entropy with them is added.
        """
        logits = self.classifier(input_ids, attention_mask, pooling)
        voice_logits, doubt_logits = logits.voice.float(), logits.doubt.float()
        log_labels = label_log_scores(voice_logits, doubt_logits)
        loss = (
            _cross_entropy(voice_logits, voice, self.label_smoothing)
            + self.doubt_weight * _cross_entropy(doubt_logits, doubt, self.label_smoothing)
            + _cross_entropy(log_labels, torch.where(voice == IGNORE, label, IGNORE), smoothing=0.0)
        )
        if soft is not None and self.teacher_weight:
            loss = loss - self.teacher_weight * (soft * log_labels).sum()
        sentences = (label != IGNORE).sum().clamp(min=1)
        return {"loss": loss / sentences, "voice_logits": voice_logits, "doubt_logits": doubt_logits}


def round_as_int8(classifier: SentenceClassifier) -> None:
    """From now on, while training, round the inputs of the encoder's linear layers as the int8 export does.

    Training with the rounding (Jacob et al. 2018) yields weights whose answers hardly change under it. Weights are
    not rounded: quantized by channel, they lose little.
    """
    for module in classifier.encoder.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(_round_input)


def _round_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    return (_Rounded.apply(inputs[0]),) if module.training else None


class _Rounded(torch.autograd.Function):
    """256 steps from the smallest to the largest value, zero among them; the gradient passes unchanged."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        low, high = values.aminmax()
        step = ((high.clamp(min=0) - low.clamp(max=0)) / 255).clamp(min=1e-8)
        return (values / step).round_().mul_(step)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


def label_log_scores(voice_logits: Tensor, doubt_logits: Tensor) -> Tensor:
    """Return the log of the labels' scores, (…, 4), under the guide's rule from voice and doubt to label."""
    log_voice, log_doubt = voice_logits.log_softmax(-1), doubt_logits.log_softmax(-1)
    log_pairs = (log_voice[..., :, None] + log_doubt[..., None, :]).flatten(-2)
    label_of_pair = torch.tensor([LABELS.index(label_of(v, d)) for v in VOICES for d in (False, True)])
    return torch.stack([log_pairs[..., label_of_pair == i].logsumexp(-1) for i in range(len(LABELS))], dim=-1)


def _cross_entropy(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(
        logits.flatten(0, 1),
        target.flatten(),
        ignore_index=IGNORE,
        label_smoothing=smoothing,
        reduction="sum",
    )


@dataclass(frozen=True)
class Network:
    """A classifier with what else is needed to train or to export it."""

    classifier: SentenceClassifier
    encoder_config: PreTrainedConfig
    tokenizer: Tokenizer

    @property
    def pad_id(self) -> int:
        """The token that fills up shorter windows; the attention mask hides it."""
        return int(self.encoder_config.pad_token_id or 0)


def new_network(encoder: str, *, dropout: float, encoder_dropout: float) -> Network:
    """Return a pretrained encoder with new heads.

    ``encoder`` is a packaged encoder (``minilm``, ``mpnet``), a folder, or a hub name.
    """
    with encoder_source(encoder) as path:
        try:
            config = encoder_config(
                AutoConfig.from_pretrained(path, trust_remote_code=False), encoder_dropout
            )
            module = AutoModel.from_pretrained(path, config=config, **_options(config))
            tokenizer = _fast_tokenizer(path, encoder)
        except (OSError, ValueError) as error:
            raise SaysoError(f"encoder {encoder!r} cannot be loaded: {str(error).splitlines()[0]}") from None
    return Network(SentenceClassifier(module, config.hidden_size, dropout), config, tokenizer)


def load_network(directory: Path, *, dropout: float = 0.0, encoder_dropout: float = 0.0) -> Network:
    """Return the network of a model directory or checkpoint, its files verified."""
    manifest = read_manifest(directory)
    values = json.loads(read_verified(directory, ENCODER, manifest))
    config = encoder_config(AutoConfig.for_model(values.pop("model_type"), **values), encoder_dropout)
    classifier = SentenceClassifier(
        AutoModel.from_config(config, **_options(config)), config.hidden_size, dropout
    )
    weights = load_safetensors(read_verified(directory, WEIGHTS, manifest))
    classifier.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    tokenizer = Tokenizer.from_str(read_verified(directory, TOKENIZER, manifest).decode("utf-8"))
    return Network(classifier.eval(), config, tokenizer)


def average_networks(networks: Sequence[Network]) -> Network:
    """Return the first network with the mean of all weights; raises SaysoError for networks of different shapes."""
    states = [network.classifier.state_dict() for network in networks]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    if any(other != shapes[0] for other in shapes):
        raise SaysoError("only weights of the same shapes can be averaged")
    mean = {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}
    networks[0].classifier.load_state_dict(mean)
    return networks[0]


def save_network(network: Network, directory: Path) -> None:
    """Write weights (fp16, half the size; the rounding is far below the noise of training), shape and tokenizer."""
    weights = {k: v.detach().cpu().half().contiguous() for k, v in network.classifier.state_dict().items()}
    save_file(weights, directory / WEIGHTS)
    (directory / ENCODER).write_text(network.encoder_config.to_json_string(use_diff=False), encoding="utf-8")
    network.tokenizer.save(str(directory / TOKENIZER), pretty=False)


def encoder_config(config: PreTrainedConfig, dropout: float) -> PreTrainedConfig:
    """Return the configuration with Sayso's choices of dropout.

    Attention dropout is off: on a processor its random numbers cost a third of a training step.
    """
    config.hidden_dropout_prob = dropout
    config.attention_probs_dropout_prob = 0.0
    return config


def load_tokenizer(encoder: str) -> Tokenizer:
    """Return the encoder's fast tokenizer."""
    with encoder_source(encoder) as path:
        return _fast_tokenizer(path, encoder)


def _fast_tokenizer(path: str, encoder: str) -> Tokenizer:
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    if not getattr(tokenizer, "is_fast", False):
        raise SaysoError(f"encoder {encoder!r} has no fast tokenizer (tokenizer.json); choose one that has")
    backend: Tokenizer = tokenizer.backend_tokenizer
    return backend


def freeze(classifier: SentenceClassifier, layers: int) -> None:
    """Let the encoder's embeddings and its lowest ``layers`` stay as they are; none for 0.

    Training then is as much cheaper as gradients need not reach them: with half of the layers frozen by a third.
    """
    for name, parameter in classifier.encoder.named_parameters():
        if layers and _depth(name) <= layers:
            parameter.requires_grad_(False)


def parameter_groups(
    model: Objective, *, encoder_rate: float, head_rate: float, decay: float
) -> Iterator[dict[str, Any]]:
    """Yield optimiser groups whose learning rate falls by ``decay`` per encoder layer downwards.

    Layer-wise decay: Howard and Ruder 2018 (discriminative fine-tuning). Heads have their own rate.
    """
    layers = 1 + max((_depth(name) for name, _ in model.named_parameters()), default=0)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if "encoder" not in name:
            rate = head_rate
        else:
            rate = encoder_rate * decay ** (layers - 1 - _depth(name))
        group: dict[str, Any] = {"params": [parameter], "lr": rate}
        if parameter.ndim == 1:
            group["weight_decay"] = 0.0
        yield group


def _depth(name: str) -> int:
    parts = name.split(".")
    numbers = [int(b) for a, b in itertools.pairwise(parts) if a in ("layer", "layers") and b.isdigit()]
    return numbers[0] + 1 if numbers else 0


def _options(config: PreTrainedConfig) -> dict[str, Any]:
    # Eager attention is the fastest of the implementations for training on a processor in bfloat16.
    options: dict[str, Any] = {} if torch.cuda.is_available() else {"attn_implementation": "eager"}
    if config.model_type in ("bert", "roberta", "mpnet"):
        options["add_pooling_layer"] = False
    return options
