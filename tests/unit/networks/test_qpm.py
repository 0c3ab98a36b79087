from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nnunet_semisup.networks import qpm
from nnunet_semisup.networks.qpm import MODES, calibrate_temperature, perturb, transition_matrix


def random_codebook(size: int, width: int = 4, seed: int = 0, scale: float = 1.0):
    return scale * torch.randn(size, width, generator=torch.Generator().manual_seed(seed))


def random_indices(count: int, size: int, seed: int = 1):
    return torch.randint(0, size, (count,), generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0):
    return torch.Generator().manual_seed(seed)


def temperature_of(codebook, mode):
    return calibrate_temperature(codebook, 4.0) if mode == "calibrated" else None


codebooks = st.builds(
    random_codebook,
    size=st.integers(2, 40),
    width=st.integers(1, 8),
    seed=st.integers(0, 999),
    scale=st.sampled_from([1e-3, 0.5, 1.0, 30.0]),
)
modes = st.sampled_from(MODES)
shares = st.floats(0, 1)
few = settings(max_examples=40, deadline=None)


class TestTransitionMatrix:
    @few
    @given(codebooks, modes, shares)
    def test_rows_are_distributions_with_the_stay_share_on_the_diagonal(self, codebook, mode, eps):
        pi = transition_matrix(codebook, eps, mode, temperature_of(codebook, mode))
        assert torch.isfinite(pi).all()
        assert (pi >= 0).all()
        torch.testing.assert_close(pi.sum(1), torch.ones(len(codebook)), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            pi.diagonal(), torch.full((len(codebook),), 1 - eps), atol=1e-6, rtol=0
        )

    @few
    @given(codebooks, st.sampled_from(["paper", "official"]), shares)
    def test_kl_from_uniform_is_within_its_bound(self, codebook, mode, eps):
        """KL <= -ln((1 - eps) + eps exp(-D)) with D the spread of the distances."""
        size = len(codebook)
        q = transition_matrix(codebook, eps, mode).double().mean(0)
        assert q.sum().item() == pytest.approx(1, abs=1e-5)
        distance = torch.cdist(codebook.double(), codebook.double())
        distance = distance.square() if mode == "official" else distance
        others = distance[~torch.eye(size, dtype=torch.bool)]
        spread = (others.max() - others.min()).item()
        bound = -math.log(max((1 - eps) + eps * math.exp(-spread), 1e-300))
        kl = -(q * size).clamp_min(1e-300).log().mean().item()
        assert kl <= bound * (1 + 1e-4) + 1e-4

    @few
    @given(codebooks, modes, st.integers(0, 999))
    def test_permuted_codes_permute_the_matrix(self, codebook, mode, seed):
        order = torch.randperm(len(codebook), generator=seeded(seed))
        temperature = temperature_of(codebook, mode)
        pi = transition_matrix(codebook, 0.7, mode, temperature)
        permuted = transition_matrix(codebook[order], 0.7, mode, temperature)
        torch.testing.assert_close(permuted, pi[order][:, order], atol=1e-4, rtol=1e-3)

    def test_independent_reference(self):
        codebook, eps = random_codebook(5), 0.3
        for mode, power in (("paper", 1), ("official", 2)):
            pi = transition_matrix(codebook, eps, mode)
            for i in range(5):
                weights = [
                    0.0 if j == i else math.exp(-(math.dist(codebook[i], codebook[j]) ** power))
                    for j in range(5)
                ]
                for j in range(5):
                    wanted = 1 - eps if i == j else eps * weights[j] / sum(weights)
                    assert pi[i, j].item() == pytest.approx(wanted, abs=1e-6)

    def test_uniform_mode_ignores_distance(self):
        pi = transition_matrix(random_codebook(5), 0.8, "uniform")
        torch.testing.assert_close(pi[0, 1:], torch.full((4,), 0.2))

    @pytest.mark.parametrize(("mode", "temperature"), [("nearest", 1.0), ("calibrated", None)])
    def test_refuses_unknown_mode_and_missing_temperature(self, mode, temperature):
        with pytest.raises(ValueError, match="calibrated"):
            transition_matrix(random_codebook(3), 0.5, mode, temperature)


class TestPerturb:
    @pytest.mark.parametrize("epsilon", [0.0, 0])
    def test_zero_is_the_identity_and_draws_nothing(self, epsilon):
        indices, generator = random_indices(50, 8), seeded()
        before, outside = generator.get_state(), torch.random.get_rng_state()
        assert perturb(indices, random_codebook(8), epsilon, "paper", None, generator) is indices
        assert torch.equal(generator.get_state(), before)
        assert torch.equal(torch.random.get_rng_state(), outside)

    @few
    @given(codebooks, modes, shares, st.integers(0, 99))
    def test_shape_type_and_range(self, codebook, mode, eps, seed):
        indices = random_indices(60, len(codebook)).view(3, 4, 5)
        moved = perturb(indices, codebook, eps, mode, temperature_of(codebook, mode), seeded(seed))
        assert moved.shape == indices.shape
        assert moved.dtype == torch.int64
        assert moved.min() >= 0
        assert moved.max() < len(codebook)

    @few
    @given(codebooks, modes, st.integers(0, 99))
    def test_share_one_changes_every_token(self, codebook, mode, seed):
        indices = random_indices(200, len(codebook))
        temperature = temperature_of(codebook, mode)
        moved = perturb(indices, codebook, 1.0, mode, temperature, seeded(seed))
        assert (moved != indices).all()

    @few
    @given(codebooks, modes, shares, shares)
    def test_smaller_share_swaps_a_subset_to_the_same_codes(self, codebook, mode, one, two):
        low, high = sorted((one, two))
        indices = random_indices(100, len(codebook))
        temperature = temperature_of(codebook, mode)
        few_moved, more_moved = (
            perturb(indices, codebook, torch.tensor(eps), mode, temperature, seeded())
            for eps in (low, high)
        )
        changed = few_moved != indices
        assert torch.equal(few_moved[changed], more_moved[changed])
        distances = [
            (codebook[moved] - codebook[indices]).norm(dim=1).sum()
            for moved in (few_moved, more_moved)
        ]
        assert distances[0] <= distances[1] + 1e-4

    def test_same_generator_state_same_result(self):
        indices, codebook = random_indices(100, 16), random_codebook(16)
        one, two, other = (
            perturb(indices, codebook, 0.5, "paper", None, seeded(seed)) for seed in (7, 7, 8)
        )
        assert torch.equal(one, two)
        assert not torch.equal(one, other)

    def test_share_a_token(self):
        """A tensor of shares acts on each token, here on the second half alone."""
        indices = random_indices(40, 16).view(2, 20)
        moved = perturb(indices, random_codebook(16), torch.tensor([[0.0], [1.0]]), "paper")
        assert torch.equal(moved[0], indices[0])
        assert (moved[1] != indices[1]).all()

    @pytest.mark.parametrize("factor", [0.01, 4.0, 20.0])
    def test_scaled_codebook_gives_the_same_codes_when_calibrated(self, factor):
        indices, codebook = random_indices(2000, 256), random_codebook(256, 16)
        results = []
        for scaled in (codebook, factor * codebook):
            temperature = calibrate_temperature(scaled, 16.0)
            results.append(perturb(indices, scaled, 1.0, "calibrated", temperature, seeded()))
        assert (results[0] == results[1]).float().mean() > 0.998

    def test_scaled_codebook_changes_the_other_modes(self):
        """The reason for the calibration: uniform for small codes, nearest code for large ones."""
        codebook = random_codebook(64, 8)
        for mode in ("paper", "official"):
            small = transition_matrix(1e-3 * codebook, 1.0, mode).amax(1).mean()
            large = transition_matrix(1e3 * codebook, 1.0, mode).amax(1).mean()
            assert small < 0.02
            assert large > 0.95

    @pytest.mark.parametrize("mode", MODES)
    def test_one_and_two_codes(self, mode):
        one, two = random_codebook(1), random_codebook(2)
        zeros = torch.zeros(5, dtype=torch.int64)
        assert perturb(zeros, one, 1.0, mode, torch.ones(())) is zeros
        assert transition_matrix(one, 1.0, mode, torch.ones(())).tolist() == [[1.0]]
        swapped = perturb(torch.tensor([0, 1, 0]), two, 1.0, mode, calibrate_temperature(two, 9.0))
        assert swapped.tolist() == [1, 0, 1]

    @pytest.mark.parametrize("mode", MODES)
    def test_duplicate_codes(self, mode):
        codebook = random_codebook(8).repeat(2, 1)
        temperature = temperature_of(codebook, mode)
        assert temperature is None or torch.isfinite(temperature)
        assert torch.isfinite(transition_matrix(codebook, 0.5, mode, temperature)).all()
        indices = random_indices(300, 16)
        moved = perturb(indices, codebook, 1.0, mode, temperature, seeded())
        assert (moved != indices).all()

    @pytest.mark.parametrize("mode", MODES)
    def test_identical_codes(self, mode):
        codebook = torch.ones(9, 3)
        temperature = temperature_of(codebook, mode)
        indices = random_indices(300, 9)
        moved = perturb(indices, codebook, 1.0, mode, temperature, seeded())
        assert (moved != indices).all()
        assert moved.unique().numel() == 9

    def test_chunks_do_not_change_the_result(self, monkeypatch):
        indices, codebook = random_indices(101, 16), random_codebook(16)
        whole = perturb(indices, codebook, 0.8, "paper", None, seeded())
        monkeypatch.setattr(qpm, "MAX_ENTRIES_CPU", 16 * 7)
        assert torch.equal(perturb(indices, codebook, 0.8, "paper", None, seeded()), whole)

    def test_autocast_does_not_change_the_result(self):
        indices, codebook = random_indices(500, 64), 10 * random_codebook(64, 8)
        temperature = calibrate_temperature(codebook, 8.0)
        plain = perturb(indices, codebook, 1.0, "calibrated", temperature, seeded())
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(calibrate_temperature(codebook, 8.0), temperature)
            mixed = perturb(indices, codebook, 1.0, "calibrated", temperature, seeded())
        assert torch.equal(mixed, plain)

    def test_no_gradient(self):
        codebook = random_codebook(8).requires_grad_()
        assert not perturb(random_indices(9, 8), codebook, 1.0, "paper").requires_grad

    def test_compiles_into_one_graph(self):
        indices, codebook = random_indices(200, 32), random_codebook(32)
        temperature = calibrate_temperature(codebook, 8.0)
        compiled = torch.compile(perturb, backend="eager", fullgraph=True)
        for epsilon in (0.7, torch.tensor(0.7)):
            results = []
            for function in (perturb, compiled):
                torch.manual_seed(0)
                results.append(function(indices, codebook, epsilon, "calibrated", temperature))
            assert torch.equal(*results)


class TestFrequencies:
    @pytest.mark.parametrize("epsilon", [0.1, 0.7])
    def test_changed_share(self, epsilon):
        count = 40_000
        indices = random_indices(count, 64)
        moved = perturb(indices, random_codebook(64), epsilon, "paper", None, seeded())
        deviation = math.sqrt(epsilon * (1 - epsilon) / count)
        assert abs((moved != indices).double().mean().item() - epsilon) < 4 * deviation

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("code", [0, 3, 5])
    def test_follow_the_transition_matrix(self, mode, code):
        """Chi-square test at 6 codes, the first and the last of the codebook included."""
        codebook, count, epsilon = random_codebook(6), 30_000, 0.7
        temperature = calibrate_temperature(codebook, 2.5) if mode == "calibrated" else None
        pi = transition_matrix(codebook, epsilon, mode, temperature)[code].double().numpy()
        moved = perturb(torch.full((count,), code), codebook, epsilon, mode, temperature, seeded(5))
        observed = torch.bincount(moved, minlength=6).numpy()
        assert chisquare(observed, pi / pi.sum() * count).pvalue > 1e-4


class TestCalibration:
    @pytest.mark.parametrize("goal", [4.0, 32.0, 128.0])
    @pytest.mark.parametrize("scale", [0.01, 1.0, 50.0])
    def test_perplexity_is_within_five_percent(self, goal, scale):
        codebook = random_codebook(700, 16, scale=scale)
        temperature = calibrate_temperature(codebook, goal)
        assert self.perplexity(codebook, temperature) == pytest.approx(goal, rel=0.05)

    def test_duplicates_do_not_spoil_it(self):
        codebook = random_codebook(256, 16).repeat(2, 1)
        temperature = calibrate_temperature(codebook, 16.0)
        assert self.perplexity(codebook, temperature) == pytest.approx(16, rel=0.05)

    def test_codes_far_from_the_origin(self):
        codebook = random_codebook(256, 16) + 20.0
        temperature = calibrate_temperature(codebook, 16.0)
        assert self.perplexity(codebook, temperature) == pytest.approx(16, rel=0.05)

    def test_goal_beyond_the_codebook_is_cut_off(self):
        codebook = random_codebook(11)
        temperature = calibrate_temperature(codebook, 1000.0)
        assert self.perplexity(codebook, temperature) == pytest.approx(9, rel=0.05)

    @pytest.mark.parametrize("size", [1, 2, 3])
    def test_tiny_codebooks(self, size):
        assert torch.isfinite(calibrate_temperature(random_codebook(size), 32.0))

    @staticmethod
    def perplexity(codebook, temperature):
        """Over all codes in float64, written without the module's own functions."""
        exact = codebook.double()
        logits = -(torch.cdist(exact, exact) ** 2) / temperature.double()
        logits.fill_diagonal_(-torch.inf)
        entropy = torch.special.entr(torch.softmax(logits, 1)).sum(1)
        return entropy.mean().exp().item()


@pytest.mark.parametrize("mode", MODES)
def test_codes_that_are_no_numbers_give_codes_that_exist(mode):
    """A training that has diverged is ended by its loss, not by an index on the device."""
    indices = torch.arange(70)
    codebook = torch.full((70, 3), torch.nan)
    found = perturb(indices, codebook, 1.0, mode, torch.tensor(1.0))
    assert found.min() >= 0
    assert found.max() < 70
