"""The guard: bad steps are skipped and counted, good ones pass, too many in a row stop the run."""

import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import guard


def run(losses, config, grad_norms=None):
  state, decisions = guard.GuardState.create(), []
  for loss, norm in zip(losses, grad_norms or [1.0] * len(losses), strict=True):
    good, state = guard.judge(state, jnp.float32(loss), jnp.float32(norm), config)
    decisions.append(bool(good))
  return decisions, state


def test_loss_or_gradient_that_is_not_finite_is_skipped_and_counted():
  losses, norms = [1.0, np.nan, 1.0, np.inf, 1.0], [1.0, 1.0, np.nan, 1.0, 1.0]
  decisions, state = run(losses, guard.GuardConfig(), norms)
  assert decisions == [True, False, False, False, True]
  assert int(state.skipped) == 3 and int(state.skipped_in_a_row) == 0
  assert int(state.accepted) == 2 and np.isfinite(float(state.mean))


def test_a_spike_is_skipped_only_after_the_warm_up_and_leaves_the_statistics_alone():
  noise = list(2.0 + 0.05 * np.random.default_rng(0).standard_normal(60))
  config = guard.GuardConfig(spike_sigmas=6.0, warmup_steps=50)
  decisions, before = run(noise, config)
  assert all(decisions)
  decisions, after = run([*noise, 5.0], config)
  assert decisions[-1] is False
  assert float(after.mean) == float(before.mean)
  assert float(after.variance) == float(before.variance)
  assert run([*noise[:10], 5.0], config)[0][-1] is True
  assert run([*noise, 5.0], guard.GuardConfig())[0][-1] is True


def test_running_mean_and_deviation_follow_the_losses():
  losses = 3.0 + 0.5 * np.random.default_rng(1).standard_normal(4000)
  _, state = run(list(losses[:400]), guard.GuardConfig())
  assert abs(float(state.mean) - 3.0) < 0.3
  assert 0.25 < float(jnp.sqrt(state.variance)) < 0.75


def test_too_many_skips_in_a_row_stop_the_run_and_say_what_to_change():
  config = guard.GuardConfig(max_consecutive_skips=3)
  guard.check(9, 2, 1.0, config)
  with pytest.raises(guard.DivergedError, match='3 updates in a row .* step 9 .* learning rate'):
    guard.check(9, 3, float('nan'), config)
