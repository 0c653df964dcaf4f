"""The losses against arithmetic written out, against TRL's DPO loss, and under padding and reordering."""

import math
from itertools import permutations
from math import exp, log

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from hyperdpo.core.losses import (
    average_counts,
    cosine_penalty,
    hypernet_loss,
    listnet_dpo_loss,
    listnet_loss,
    mean_losses,
    plackett_luce_log_likelihood,
    scalarise,
    top_one_log_probabilities,
)
from hyperdpo.core.targets import l1_targets, softmax_targets
from hyperdpo.errors import InputError


def all_real(*shape):
    return torch.ones(*shape, dtype=torch.bool)


def random_batch(G=6, m=2, n=5, seed=0):
    """Scores, base scores, targets, signal and mask of groups of 1 to n items; float64."""
    generator = torch.Generator().manual_seed(seed)
    scores, base = torch.randn(2, G, n, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (G, m, n), generator=generator).double()
    mask = torch.arange(n) < torch.randint(1, n + 1, (G, 1), generator=generator)
    targets, signal = l1_targets(labels, mask.unsqueeze(1))
    return scores, base, targets, signal, mask


@st.composite
def batches(draw):
    """As random_batch, of any shape and with scores of any size."""
    G, m, n = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 6))
    scores, base = torch.from_numpy(draw(hnp.arrays(np.float64, (2, G, n), elements=st.floats(-1e3, 1e3))))
    labels = torch.from_numpy(draw(hnp.arrays(np.float64, (G, m, n), elements=st.sampled_from([0.0, 0.5, 1.0, 3.0]))))
    mask = torch.from_numpy(draw(hnp.arrays(bool, (G, n))))
    targets, signal = draw(st.sampled_from([l1_targets, softmax_targets]))(labels, mask.unsqueeze(1))
    return scores, base, targets, signal, mask


# --- the Plackett-Luce model


def test_the_probabilities_of_all_rankings_of_five_items_sum_to_one():
    scores = torch.tensor([0.3, -1.2, 2.0, 0.0, 0.9], dtype=torch.float64)
    rankings = torch.tensor(list(permutations(range(5))))
    likelihoods = plackett_luce_log_likelihood(scores.expand(120, 5), rankings).exp()
    assert likelihoods.sum().item() == pytest.approx(1, abs=1e-12)


def test_the_probability_of_a_ranking_of_three_items_is_a_product_of_three_choices():
    scores, ranking = torch.tensor([1.0, 0.5, -0.5], dtype=torch.float64), torch.tensor([2, 0, 1])
    a, b, c = exp(1.0), exp(0.5), exp(-0.5)
    expected = c / (c + a + b) * a / (a + b) * b / b
    assert plackett_luce_log_likelihood(scores, ranking).exp().item() == pytest.approx(expected, rel=1e-12)


def test_places_beyond_the_real_items_do_not_count_in_a_ranking():
    scores = torch.tensor([math.nan, 1.0, 0.5, 1e9, -0.5], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([False, True, True, False, True])
    value = plackett_luce_log_likelihood(scores, torch.tensor([4, 1, 2, -1, 0]), mask)
    unpadded = plackett_luce_log_likelihood(torch.tensor([1.0, 0.5, -0.5]).double(), torch.tensor([2, 0, 1]))
    assert value.item() == pytest.approx(unpadded.item(), rel=1e-12)
    value.backward()
    assert scores.grad.isfinite().all()
    assert not scores.grad[~mask].any()


def test_a_ranking_against_huge_scores_has_a_finite_likelihood():
    scores = torch.tensor([[-1e4, 0.0, 1e4]], requires_grad=True)
    value = plackett_luce_log_likelihood(scores, torch.tensor([[0, 1, 2]]))
    assert value.item() == pytest.approx(-3e4)
    value.sum().backward()
    assert scores.grad.isfinite().all()


def test_the_top_one_probability_sums_the_rankings_that_an_item_leads():
    scores = torch.tensor([0.3, -1.2, 2.0, 0.0], dtype=torch.float64)
    rankings = torch.tensor(list(permutations(range(4))))
    likelihoods = plackett_luce_log_likelihood(scores.expand(24, 4), rankings).exp()
    leading = torch.stack([likelihoods[rankings[:, 0] == i].sum() for i in range(4)])
    torch.testing.assert_close(top_one_log_probabilities(scores, all_real(4)).exp(), leading)


# --- the ListNet losses


def test_listnet_is_the_cross_entropy_of_targets_and_softmax():
    loss = listnet_loss(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[0.75, 0.25, 0.0]]), all_real(1, 3))
    total = exp(1) + exp(2) + exp(0)
    assert loss.item() == pytest.approx(-(0.75 * log(exp(1) / total) + 0.25 * log(exp(2) / total)), rel=1e-6)


def test_listnet_serves_several_objectives_at_once():
    scores, _, targets, _, mask = random_batch(m=3)
    one_by_one = torch.stack([listnet_loss(scores, targets[:, j], mask) for j in range(3)], dim=1)
    torch.testing.assert_close(listnet_loss(scores, targets, mask), one_by_one)


def test_listnet_against_a_base_is_listnet_on_beta_times_the_distance():
    scores, base = torch.tensor([[1.0, 2.0, 0.0]]).double(), torch.tensor([[0.5, 2.5, 0.0]]).double()
    targets = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]]).double()
    losses = listnet_dpo_loss(scores, base, targets, all_real(1, 3), (2.0, 0.1))
    # beta = 2 makes the distances (0.5, -0.5, 0) into (1, -1, 0); beta = 0.1 into (0.05, -0.05, 0)
    first = -log(exp(1) / (exp(1) + exp(-1) + 1))
    total = exp(0.05) + exp(-0.05) + 1
    second = -(0.5 * log(exp(-0.05) / total) + 0.5 * log(1 / total))
    assert losses.tolist() == [[pytest.approx(first, rel=1e-12), pytest.approx(second, rel=1e-12)]]


def test_only_beta_times_the_distance_from_the_base_matters_and_only_up_to_a_shift():
    scores, base, targets, _, mask = random_batch()
    loss = listnet_dpo_loss(scores, base, targets, mask, (0.5, 0.5))
    shift = torch.randn(len(scores), 1, dtype=torch.float64)
    torch.testing.assert_close(listnet_dpo_loss(scores + shift, base - shift, targets, mask, (0.5, 0.5)), loss)
    both = torch.randn_like(scores)
    torch.testing.assert_close(listnet_dpo_loss(scores + both, base + both, targets, mask, (0.5, 0.5)), loss)
    torch.testing.assert_close(listnet_dpo_loss((scores - base) / 4, 0 * base, targets, mask, (2.0, 2.0)), loss)


@pytest.mark.parametrize("wrap", [tuple, torch.tensor, lambda betas: torch.tensor(betas, requires_grad=True)])
@pytest.mark.parametrize("betas", [[0.7, 0.7, 0.7], [0.7, 0.2, 3.0]])
def test_equal_and_unequal_temperatures_agree_with_one_objective_at_a_time(betas, wrap):
    scores, base, targets, _, mask = random_batch(m=3)
    together = listnet_dpo_loss(scores, base, targets, mask, wrap(betas))
    alone = [listnet_dpo_loss(scores, base, targets[:, j : j + 1], mask, [betas[j]]) for j in range(3)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("betas", [(1.0,), (1.0, 1.0, 1.0), (1.0, 0.0), (1.0, -1.0), (1.0, math.nan), torch.zeros(2)])
def test_there_is_one_positive_temperature_per_objective(betas):
    scores, base, targets, _, mask = random_batch(m=2)
    with pytest.raises(InputError, match=r"expected (one per objective|finite numbers > 0)"):
        listnet_dpo_loss(scores, base, targets, mask, betas)


@pytest.mark.parametrize("betas", [[0.7, 0.7], [0.5, 2.0]])
def test_an_objective_that_labels_some_items_only_is_the_loss_of_the_list_of_those(betas):
    scores, base = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    labels = torch.tensor([[[1.0, 0.0, 2.0, 5.0], [3.0, 1.0, 0.0, 0.0]]], dtype=torch.float64)
    labelled = torch.tensor([[[True, True, True, False], [True, True, True, True]]])
    targets, _ = l1_targets(labels, labelled)
    losses = listnet_dpo_loss(scores, base, targets, labelled, betas)
    three, four = [0, 1, 2], [0, 1, 2, 3]
    for j, items in enumerate((three, four)):
        alone = listnet_dpo_loss(
            scores[:, items], base[:, items], targets[:, j : j + 1, items], all_real(1, len(items)), [betas[j]]
        )
        assert losses[0, j].item() == pytest.approx(alone.item(), rel=1e-12)


def test_the_loss_is_smallest_where_the_top_one_probabilities_are_the_targets():
    base, targets = torch.randn(1, 4).double(), torch.tensor([[[0.1, 0.2, 0.3, 0.4]]]).double()
    best = base + targets[0].log() / 0.5
    entropy = -(targets * targets.log()).sum()
    best.requires_grad_()
    loss = listnet_dpo_loss(best, base, targets, all_real(1, 4), [0.5])
    assert loss.item() == pytest.approx(entropy.item())
    loss.sum().backward()
    torch.testing.assert_close(best.grad, torch.zeros_like(best))


def test_gradients_agree_with_finite_differences():
    scores, base, targets, signal, mask = random_batch(G=3)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)

    def loss(free):
        return hypernet_loss(listnet_dpo_loss(free, base, targets, mask, (0.5, 2.0)), signal, weights, penalty=0.4)

    assert torch.autograd.gradcheck(loss, scores.requires_grad_())


# --- the DPO loss of TRL


@pytest.fixture(scope="module")
def dpo_trainer(tmp_path_factory):
    """TRL's trainer around two tiny GPT-2 models of different weights, made from a config."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "is", "it", "yes", "no", "perhaps", "so"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    policy, reference = (
        GPT2LMHeadModel(
            GPT2Config(
                vocab_size=8, n_positions=16, n_embd=8, n_layer=1, n_head=2, initializer_range=0.5,
                resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=1, pad_token_id=0,
            )
        )
        for _ in range(2)
    )  # fmt: skip
    return trl.DPOTrainer(
        model=policy,
        ref_model=reference,
        args=trl.DPOConfig(
            output_dir=str(tmp_path_factory.mktemp("dpo")), beta=0.3, loss_type="sigmoid", report_to="none",
            use_cpu=True, bf16=False, per_device_train_batch_size=3, disable_dropout=True,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_dict({
            "prompt": ["is it", "is it so", "it is"],
            "chosen": [" yes it is", " perhaps", " so"],
            "rejected": [" no", " no it is", " perhaps so"],
        }),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>"),
    )  # fmt: skip


def test_two_items_with_binary_labels_are_the_dpo_loss_of_trl_in_value_and_gradient(dpo_trainer):
    kept = {}

    def recording(name, model):
        def forward(**inputs):
            kept[name] = model(**inputs)
            if name == "policy":
                kept[name].log_probs.retain_grad()
            return kept[name]

        return forward

    batch = next(iter(dpo_trainer.get_train_dataloader()))
    reference, dpo_trainer.ref_model = dpo_trainer.ref_model, recording("reference", dpo_trainer.ref_model)
    try:
        trl_loss = dpo_trainer.compute_loss(recording("policy", dpo_trainer.model), batch)
    finally:
        dpo_trainer.ref_model = reference
    trl_loss.backward()

    # TRL's batch is three chosen responses, then three rejected ones: here, three groups of two items. An item's score
    # is the sum of its tokens' log-probabilities, so TRL's gradient with respect to any of its tokens is ours for it.
    def item_scores(name):
        return kept[name].log_probs.sum(1).detach().reshape(2, 3).T

    scores = item_scores("policy").requires_grad_()
    labels = torch.tensor([[1.0, 0.0]]).expand(3, 1, 2)
    targets, signal = l1_targets(labels, all_real(3, 1, 2))
    losses = listnet_dpo_loss(scores, item_scores("reference"), targets, all_real(3, 2), [dpo_trainer.beta])
    ours = mean_losses(losses, signal).sum()
    ours.backward()

    assert ours.item() == pytest.approx(trl_loss.item(), rel=1e-6)
    assert abs(ours.item() - log(2)) > 1e-3  # the policy is not the reference: there is something to compare
    token_gradients = kept["policy"].log_probs.grad
    response = kept["policy"].log_probs != 0
    expected = scores.grad.T.reshape(6, 1).expand_as(token_gradients)
    torch.testing.assert_close(token_gradients[response], expected[response], rtol=1e-5, atol=1e-7)


# --- padding, order, and groups that say nothing


@given(batch=batches(), junk=st.sampled_from([math.nan, math.inf, 1e30, -5.0]), seed=st.integers(0, 99))
@settings(deadline=None)
def test_losses_and_gradients_ignore_padding_and_follow_the_order_of_the_items(batch, junk, seed):
    scores, base, targets, signal, mask = batch
    m, n = targets.shape[-2:]
    betas = [0.5 + j for j in range(m)]

    scores = scores.clone().requires_grad_()
    losses = listnet_dpo_loss(scores, base, targets, mask, betas)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert scores.grad.isfinite().all()
    assert not scores.grad[~mask].any()
    assert not losses[~signal].any()

    order = torch.randperm(n + 3, generator=torch.Generator().manual_seed(seed))

    def widened(x, fill):
        return torch.nn.functional.pad(x, (0, 3), value=fill)[..., order]

    wide_scores = widened(scores.detach().masked_fill(~mask, junk), junk).requires_grad_()
    wide_base, wide_mask = widened(base.masked_fill(~mask, junk), junk), widened(mask, False)
    wide = listnet_dpo_loss(wide_scores, wide_base, widened(targets, 0), wide_mask, betas)
    wide.sum().backward()
    torch.testing.assert_close(wide, losses)
    torch.testing.assert_close(wide_scores.grad, widened(scores.grad, 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_of_padding_have_finite_values_and_gradients_in_every_precision(dtype):
    scores = torch.full((1, 3), math.nan, dtype=dtype, requires_grad=True)
    with torch.autograd.set_detect_anomaly(True):
        value = top_one_log_probabilities(scores, torch.zeros(1, 3, dtype=torch.bool))
        value.sum().backward()
    assert not value.any()
    assert not scores.grad.any()


def test_a_group_of_one_item_changes_neither_the_loss_vector_nor_its_gradient():
    scores, base, targets, signal, mask = random_batch(G=4, n=3)
    one = torch.tensor([[True, False, False]])
    one_targets, one_signal = l1_targets(torch.ones(1, 2, 3).double(), one.unsqueeze(1))

    def loss_vector(*parts):
        more_scores, more_base, more_targets, more_signal, more_mask = (torch.cat(part) for part in parts)
        losses = listnet_dpo_loss(more_scores, more_base, more_targets, more_mask, (1.0, 1.0))
        return mean_losses(losses, more_signal)

    lone = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    with_it = loss_vector(
        (scores, lone), (base, lone.detach()), (targets, one_targets), (signal, one_signal), (mask, one)
    )
    torch.testing.assert_close(with_it, loss_vector((scores,), (base,), (targets,), (signal,), (mask,)))
    with_it.sum().backward()
    assert not lone.grad.any()


# --- the loss vector, scalarisation and the penalty


def test_the_loss_vector_is_the_mean_over_groups_with_signal():
    group_losses = torch.tensor([[1.0, 10.0], [3.0, 20.0], [8.0, 40.0]])
    signal = torch.tensor([[True, False], [True, True], [False, True]])
    assert mean_losses(group_losses, signal).tolist() == [2.0, 30.0]


def test_an_objective_without_signal_has_zero_loss_and_zero_gradient():
    group_losses = torch.tensor([[1.0, math.nan], [3.0, math.inf]], requires_grad=True)
    losses = mean_losses(group_losses, torch.tensor([[True, False], [True, False]]))
    losses.sum().backward()
    assert losses.tolist() == [2.0, 0.0]
    assert group_losses.grad.tolist() == [[0.5, 0.0], [0.5, 0.0]]


def test_half_precision_losses_are_averaged_in_single_precision():
    many = mean_losses(torch.ones(5000, 1, dtype=torch.bfloat16), all_real(5000, 1))
    assert many.dtype == torch.float32
    assert many.item() == 1


@pytest.mark.parametrize("per_group", [False, True])
def test_every_process_gets_the_loss_over_all_groups_and_gradients_add_up(per_group):
    generator = torch.Generator().manual_seed(0)
    group_losses = torch.rand(6, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    signal = torch.rand(6, 2, generator=generator) < 0.6
    weights = torch.tensor([0.2, 0.8]).double() if not per_group else torch.rand(6, 2, generator=generator).double()
    whole = hypernet_loss(group_losses, signal, weights, penalty=0.5)
    (whole_gradient,) = torch.autograd.grad(whole, group_losses)

    shares = [slice(0, 2), slice(2, 6)]  # two processes

    def run(share, reduce):
        own = weights[share] if per_group else weights
        return hypernet_loss(group_losses[share], signal[share], own, penalty=0.5, reduce=reduce)

    sent = []  # what each process hands to its collective calls, in order
    for share in shares:
        calls = []
        run(share, lambda x, calls=calls: calls.append(x.detach()) or x)
        sent.append(calls)
    total_gradient = 0
    for rank, share in enumerate(shares):
        others = iter(sent[1 - rank])
        loss = run(share, lambda x, others=others: x + next(others))
        assert loss.item() == pytest.approx(whole.item())
        total_gradient = total_gradient + torch.autograd.grad(loss, group_losses)[0]
    torch.testing.assert_close(total_gradient, whole_gradient)


def test_scalarisation_is_the_inner_product():
    assert scalarise(torch.tensor([2.0, 4.0]), torch.tensor([0.25, 0.75])).item() == 3.5
    assert scalarise(torch.tensor([[2.0, 4.0], [1.0, 0.0]]), torch.tensor([0.25, 0.75])).tolist() == [3.5, 0.25]


def test_the_penalty_is_minus_the_cosine():
    losses = torch.tensor([[3.0, 4.0], [4.0, 0.0], [0.0, 2.0]])
    weights = torch.tensor([[0.6, 0.8], [0.5, 0.5], [1.0, 0.0]])
    torch.testing.assert_close(cosine_penalty(losses, weights), torch.tensor([-1.0, -math.sqrt(0.5), 0.0]))
    torch.testing.assert_close(cosine_penalty(100 * losses, weights), cosine_penalty(losses, weights))


def test_the_penalty_of_a_zero_loss_vector_is_zero_with_zero_gradient():
    losses = torch.zeros(3, requires_grad=True)
    value = cosine_penalty(losses, torch.tensor([0.2, 0.3, 0.5]))
    value.backward()
    assert value.item() == 0
    assert losses.grad.tolist() == [0, 0, 0]


def test_one_shared_w_is_scalarisation_plus_the_penalty_of_the_loss_vector():
    group_losses = torch.tensor([[1.0, 4.0], [5.0, 4.0]])
    loss = hypernet_loss(group_losses, all_real(2, 2), torch.tensor([0.5, 0.5]), penalty=0.1)
    # L = (3, 4): w^T L = 3.5; cos = 3.5 / (5 sqrt(1/2))
    assert loss.item() == pytest.approx(3.5 - 0.1 * 3.5 / (5 * math.sqrt(0.5)))


def test_one_w_per_group_weighs_each_group_by_its_own():
    group_losses = torch.tensor([[1.0, 4.0], [5.0, 4.0], [7.0, 9.0]])
    signal = torch.tensor([[True, True], [True, False], [False, False]])
    weights = torch.tensor([[0.25, 0.75], [0.6, 0.4], [0.5, 0.5]])
    loss = hypernet_loss(group_losses, signal, weights)
    assert loss.item() == pytest.approx((0.25 * 1 + 0.6 * 5) / 2 + 0.75 * 4)
    # the first group has both objectives, the second only the first one (cosine 1), the third none
    cosine = (0.25 * 1 + 0.75 * 4) / (math.hypot(0.25, 0.75) * math.hypot(1, 4))
    penalised = hypernet_loss(group_losses, signal, weights, penalty=0.1)
    assert penalised.item() == pytest.approx(loss.item() - 0.1 * (cosine + 1) / 2)


@given(batch=batches(), seed=st.integers(0, 99))
@settings(deadline=None)
def test_the_same_w_for_every_group_is_one_shared_w(batch, seed):
    scores, base, targets, signal, mask = batch
    losses = listnet_dpo_loss(scores, base, targets, mask, [1.0] * targets.shape[1])
    w = torch.rand(targets.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    w /= w.sum()
    torch.testing.assert_close(hypernet_loss(losses, signal, w.expand_as(losses)), hypernet_loss(losses, signal, w))


@given(batch=batches(), per_group=st.booleans())
@settings(deadline=None)
def test_the_penalised_loss_is_finite_with_finite_gradients(batch, per_group):
    scores, base, targets, signal, mask = batch
    m = targets.shape[1]
    scores = scores.clone().requires_grad_()
    losses = listnet_dpo_loss(scores, base, targets, mask, [1.0] * m)
    weights = torch.eye(m, dtype=torch.float64)[torch.arange(len(scores)) % m]
    loss = hypernet_loss(losses, signal, weights if per_group else weights[0], penalty=1.0)
    loss.backward()
    assert loss.isfinite()
    assert scores.grad.isfinite().all()


def test_weights_have_one_value_per_objective():
    with pytest.raises(InputError, match=r"weights of shape \(3,\), expected \(2,\) or \(5, 2\)"):
        hypernet_loss(torch.rand(5, 2), all_real(5, 2), torch.ones(3) / 3)


def test_batches_of_different_sizes_with_constant_counts_are_the_mean_over_all_groups():
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(10, 2, generator=generator, dtype=torch.float64)
    signal = torch.rand(10, 2, generator=generator) < 0.7
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    expected = scalarise(mean_losses(losses, signal), weights)
    for w in (weights, weights.expand(10, 2)):
        parts = [
            hypernet_loss(losses[a:b], signal[a:b], w if w.dim() == 1 else w[a:b], counts=average_counts(signal, 2))
            for a, b in ((0, 3), (3, 10))
        ]
        torch.testing.assert_close(torch.stack(parts).mean(), expected, rtol=1e-6, atol=0)
    assert average_counts(torch.zeros(4, 2, dtype=torch.bool), 2).tolist() == [0.5, 0.5], "never 0: it divides"


def test_the_penalty_leaves_out_an_objective_that_a_batch_says_nothing_about():
    losses, weights = torch.tensor([[2.0, 9.0], [4.0, 9.0]]), torch.tensor([0.6, 0.4])
    signal = torch.tensor([[True, False], [True, False]])
    # The first objective alone is left: loss (3) and weight (0.6) point the same way, so the penalty is -1.
    assert hypernet_loss(losses, signal, weights, penalty=1.0).item() == pytest.approx(0.6 * 3 - 1)
