"""A language model from nothing: stories from a small grammar, and a GPT-2-shaped model that is trained on them.

It replaces a pretrained model where none is at hand (``hyperdpo demo --align``, tests). A story has hidden moods: how
often it is glad or sad, how often people talk, how long its sentences are. They are drawn per story and do not show in
its first words. So several continuations of one beginning differ in every measure of the text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hyperdpo.core.preferences import stream
from hyperdpo.errors import InputError
from hyperdpo.files import read_yaml, written
from hyperdpo.progress import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
#: Every word of the grammar becomes one or two tokens.
VOCABULARY = 768
#: Positions of the model, and the length of a training window: room for 8 virtual tokens, prompt and response.
CONTEXT = 160
STORIES, STEPS = 2000, 320
#: Tried: 16 windows in half the steps end at 1.51 nats per token on new stories, 8 windows at 1.31, with 8e-3 at 1.28.
WINDOWS, LEARNING_RATE, WARMUP, CLIP = 8, 6e-3, 20, 1.0

#: Set in the checkpoint's config.json: nothing but a demo model may be replaced.
_MARK = "hyperdpo_demo"
#: Keys of the random streams.
_GRAMMAR, _INITIAL, _WINDOWS = 1, 2, 3


def demo_corpus(stories: int = STORIES, seed: int = 0) -> list[str]:
    """Generated stories, one string each; with the same seed, fewer stories are a prefix of more.

    Raises:
        InputError: ``stories`` is below 1.
    """
    if stories < 1:
        raise InputError(f"stories is {stories}; expected at least 1")
    grammar = read_yaml(Path(__file__).with_name("grammar.yaml"))
    return [_Story.drawn(grammar, stream(seed, _GRAMMAR, number)).text() for number in range(stories)]


def build_tokenizer(texts: list[str], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the texts; it puts ``<s>`` before every text, like many pretrained ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


def train_demo_lm(
    out: Path, *, seed: int = 0, steps: int = STEPS, stories: int = STORIES, progress: bool = True
) -> Path:
    """Train the demo's language model on one CPU core in well under a minute and save it as a transformers checkpoint.

    Args:
        out: the directory of the checkpoint; an earlier demo model there is replaced, once the new one is complete.
        seed: for the corpus, the initial weights and the batches; the same seed gives the same model on one machine.
        steps: optimizer steps of :data:`WINDOWS` windows of :data:`CONTEXT` tokens.
        progress: whether a terminal sees a bar.

    Returns:
        ``out``.

    Raises:
        InputError: a number out of range; ``out`` is a file or holds something else; it cannot be written to.
    """
    out = Path(out)
    if steps < 1:
        raise InputError(f"steps is {steps}; expected at least 1")
    if out.exists() and not _may_be_replaced(out):
        raise InputError(f"{out}: exists and does not hold a demo model; expected a new directory")
    texts = demo_corpus(stories, seed)
    tokenizer = build_tokenizer(texts)
    model = _new_model(tokenizer, seed)
    _train(model, *_token_stream(tokenizer, texts), steps, seed, progress)
    with written(out, directory=True) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return out


def _new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
    """GPT-2 in small: 4 layers of width 64, about 260,000 parameters, tied embeddings, no dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT,
        n_embd=64,
        n_layer=4,
        n_head=4,
        # Dropout costs time, and two passes over a grammar do not overfit.
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    setattr(config, _MARK, True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(stream(seed, _INITIAL).integers(2**63)))
        model = GPT2LMHeadModel(config)
    # Not in the model's own config: generate() would then warn of rows that have ended.
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def _token_stream(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """All stories as one run of tokens, each from BOS to EOS, and the positions where stories start."""
    # Not tokenizer(texts): that warns of stories longer than the context, which are meant to run on.
    encoded = [[*story.ids, tokenizer.eos_token_id] for story in tokenizer.backend_tokenizer.encode_batch(texts)]
    starts = np.cumsum([0, *map(len, encoded)])[:-1]
    # Wrapped around, so that the last stories can start a window too, however few there are.
    tokens = np.concatenate([np.array(ids, dtype=np.int64) for ids in encoded])
    return np.concatenate([tokens, np.resize(tokens, CONTEXT)]), starts


def _train(model: Any, tokens: np.ndarray, starts: np.ndarray, steps: int, seed: int, progress: bool) -> None:
    """A plain loop: AdamW, linear warm-up, cosine to zero.

    A window starts with a story and runs on into the next ones. So BOS stands at the first position, as in generation,
    and at all others, and every position is trained.
    """
    from torch.nn.functional import cross_entropy

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / WARMUP) * (0.5 + 0.5 * math.cos(math.pi * step / steps)),
    )
    random = stream(seed, _WINDOWS)
    model.train()
    with progress_bar("train a small language model", steps, "steps", show=progress) as update:
        for step in range(steps):
            first = random.choice(starts, WINDOWS)
            batch = torch.from_numpy(tokens[first[:, None] + np.arange(CONTEXT)])  # (B, T)
            logits = model(input_ids=batch).logits[:, :-1]
            loss = cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            update(step + 1, f"loss {loss.item():.3f}")
    model.eval()


def _may_be_replaced(out: Path) -> bool:
    """Whether ``out`` is an empty directory or holds an earlier demo model."""
    if not out.is_dir():
        return False
    try:
        return _MARK in json.loads((out / "config.json").read_bytes())
    except (OSError, ValueError):
        return not any(out.iterdir())


@dataclass(frozen=True)
class _Story:
    """Who a story is about, and its moods."""

    grammar: Mapping[str, Any]
    """The content of ``grammar.yaml``."""
    random: np.random.Generator
    hero: str
    friend: str
    girl: bool
    glad: float
    """Chance that a sentence with a feeling is a glad one."""
    talk: float
    """Chance that a sentence is spoken."""
    length: float
    """Mean of what is linked on to a sentence."""

    @staticmethod
    def drawn(grammar: Mapping[str, Any], random: np.random.Generator) -> _Story:
        girl = bool(random.integers(2))
        girls, boys = grammar["girls"], grammar["boys"]
        hero, friend = random.permutation(girls if girl else boys)[0], random.permutation(boys + girls)[:2]
        return _Story(
            grammar=grammar,
            random=random,
            hero=str(hero),
            friend=str(next(name for name in friend if name != hero)),
            girl=girl,
            # U-shaped: stories differ more than the sentences of a story do.
            glad=float(random.beta(0.6, 0.6)),
            talk=float(random.beta(0.6, 1.4)),
            length=float(random.choice((0.1, 0.7, 1.6))),
        )

    def text(self) -> str:
        opening = self._filled(self._pick(self.grammar["openings"]))
        return " ".join([opening, *(self._sentence() for _ in range(self.random.integers(5, 11)))])

    def _sentence(self) -> str:
        if self.random.random() < self.talk:
            speaker, listener = (self.hero, self.friend) if self.random.integers(2) else (self.friend, self.hero)
            spoken = self._filled(self._pick(self.grammar["speech"][self._mood()]), f=listener)
            return f'"{spoken}" {self._pick(self.grammar["said"])} {speaker}.'
        text = self._event()
        for _ in range(min(self.random.poisson(self.length), 3)):
            text += f"{self._pick(self.grammar['links'])} {self._event()}"
        return text[0].upper() + text[1:] + "."

    def _event(self) -> str:
        return self._filled(self._pick(self.grammar["events"][self._mood()]))

    def _mood(self) -> str:
        if self.random.random() < 0.4:
            return "plain"
        return "glad" if self.random.random() < self.glad else "sad"

    def _filled(self, template: str, **people: str) -> str:
        chosen = {kind: self._pick(words) for kind, words in self.grammar["words"].items()}
        child, he, his = ("girl", "she", "her") if self.girl else ("boy", "he", "his")
        people = {"n": self.hero, "f": self.friend, "p": he, "s": his, "child": child, **people}
        return template.format(kind=self._pick(self.grammar["kinds"]), **chosen, **people)

    def _pick(self, choices: Sequence[str]) -> str:
        return choices[int(self.random.integers(len(choices)))]
