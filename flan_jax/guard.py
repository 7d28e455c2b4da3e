"""Keeps a bad step out of the weights: non-finite numbers and loss spikes skip the update.

The running statistics are part of the training state, so a resumed run decides as the
uninterrupted one would. Parameters and optimizer moments both stay as they were.
"""

import dataclasses

import jax
import jax.numpy as jnp

DECAY = 0.98  # of the running mean and variance: a memory of about 50 steps


class DivergedError(RuntimeError):
  """Too many updates in a row were skipped."""


@dataclasses.dataclass(frozen=True)
class GuardConfig:
  """What counts as a bad step.

  Attributes:
    spike_sigmas: Skip a step whose loss lies this many standard deviations above its running
      mean; 0 skips only non-finite loss or gradients.
    warmup_steps: Accepted steps before spikes are looked for.
    max_consecutive_skips: Stop the run after so many skipped updates in a row.
    recompute_every_steps: Compute every so many steps twice and compare the results bit by bit,
      against devices that compute wrongly; costs as much as one step more, and the memory of a
      second state meanwhile. 0 leaves it out.
    hang_seconds: A step, the wait for its data, or a save that takes longer ends the process.
  """

  spike_sigmas: float = 0.0
  warmup_steps: int = 100
  max_consecutive_skips: int = 10
  recompute_every_steps: int = 0
  hang_seconds: float = 1800.0

  def __post_init__(self):
    if self.hang_seconds <= 0:
      raise ValueError(
        f'GuardConfig.hang_seconds={self.hang_seconds} must be above 0; 1800 is half an hour.'
      )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GuardState:
  """Running loss statistics and counts, all scalars."""

  mean: jax.Array
  variance: jax.Array
  accepted: jax.Array
  skipped: jax.Array
  skipped_in_a_row: jax.Array

  @classmethod
  def create(cls) -> 'GuardState':
    """Statistics of no step at all."""

    # An array for each: the train step donates them, and a buffer can be given away once.
    def zero(dtype):
      return jnp.zeros((), dtype)

    return cls(
      mean=zero(jnp.float32),
      variance=zero(jnp.float32),
      accepted=zero(jnp.int32),
      skipped=zero(jnp.int32),
      skipped_in_a_row=zero(jnp.int32),
    )


def judge(
  state: GuardState, loss: jax.Array, grad_norm: jax.Array, config: GuardConfig
) -> tuple[jax.Array, GuardState]:
  """Decides whether an update is safe; returns (bool scalar, the next state).

  Args:
    state: Statistics of the steps before.
    loss: float32 scalar, mean loss per target token.
    grad_norm: float32 scalar, norm of all gradients before clipping.
    config: The limits.
  """
  good = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
  if config.spike_sigmas:
    limit = state.mean + config.spike_sigmas * jnp.sqrt(state.variance)
    good &= (state.accepted < config.warmup_steps) | (loss <= limit)
  # The first steps count fully, so that the mean does not start at zero.
  rate = jnp.maximum(1.0 - DECAY, 1.0 / (state.accepted + 1.0))
  difference = jnp.where(good, loss - state.mean, 0.0)
  variance = (1.0 - rate) * (state.variance + rate * jnp.square(difference))
  one = good.astype(jnp.int32)
  return good, GuardState(
    mean=state.mean + rate * difference,
    variance=jnp.where(good, variance, state.variance),
    accepted=state.accepted + one,
    skipped=state.skipped + 1 - one,
    skipped_in_a_row=jnp.where(good, 0, state.skipped_in_a_row + 1),
  )


def check(step: int, skipped_in_a_row: int, loss: float, config: GuardConfig) -> None:
  """Raises DivergedError once the limit of skips in a row is reached."""
  if skipped_in_a_row >= config.max_consecutive_skips:
    raise DivergedError(
      f'{skipped_in_a_row} updates in a row were skipped up to step {step} (last loss {loss:.4g}): '
      f'the loss or its gradient is not finite, or spiked. Lower the learning rate, clip gradients '
      f'harder, or look at the data of these steps; GuardConfig.max_consecutive_skips='
      f'{config.max_consecutive_skips} is the limit.'
    )
