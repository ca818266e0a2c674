"""When Cloud Tasks tries again, and when it gives up."""

from datetime import datetime, timedelta

from tests.sandbox.cloud_tasks.values import RetryConfig


def backoff(retry: RetryConfig, failures: int) -> timedelta:
    """The wait after the `failures`-th failure (from 1).

    Doubles `max_doublings` times, then grows by the last step, up to `max_backoff`. The
    reference's example, 10 s to 300 s with 3 doublings: 10, 20, 40, 80, 160, 240, 300, 300 …
    """
    doublings = min(failures - 1, retry.max_doublings)
    # Beyond 2**60 every backoff is past any max; the cap keeps timedelta from overflowing.
    step = retry.min_backoff.total_seconds() * 2 ** min(doublings, 60)
    steps = max(1, failures - retry.max_doublings)
    return min(retry.max_backoff, timedelta(seconds=min(step * steps, 1e9)))


def exhausted(retry: RetryConfig, *, attempts: int, first_at: datetime, now: datetime) -> bool:
    """Whether a task that has failed `attempts` times is given up, and so deleted.

    Only when max_attempts and max_retry_duration are both spent: a positive duration prolongs
    retrying, it does not cap it. An unlimited one (-1, or 0 s) leaves the decision to the other;
    with both unlimited only the retention of 31 days ends it.
    """
    attempts_limited = retry.max_attempts != -1
    time_limited = retry.max_retry_duration > timedelta(0)
    if not attempts_limited and not time_limited:
        return False
    attempts_spent = not attempts_limited or attempts >= retry.max_attempts
    time_spent = not time_limited or now - first_at >= retry.max_retry_duration
    return attempts_spent and time_spent
