import assert from 'node:assert/strict';
import test from 'node:test';
import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import { persist } from './patience.ts';

const patience = { firstWaitMs: 100, maxWaitMs: 1000, totalMs: 5000 };
const away = new HoldfastError('store-failed', 'away', { retryable: true, remedy: 'Wait' });

/** A clock whose sleeps take no time but count. */
function countingContext(fraction = 1) {
  let nowMs = 0;
  const waits: number[] = [];
  const clock = {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    sleep: async (ms: number, signal?: AbortSignal) => {
      signal?.throwIfAborted();
      waits.push(ms);
      nowMs += ms;
    },
  };
  return { clock, waits, random: { fraction: () => fraction, bytes: (length: number) => new Uint8Array(length) } };
}

test('what fails in passing is tried again with growing, bounded, jittered waits', async () => {
  const context = countingContext();
  const answer = await persist(patience, context, async (attempt) => {
    if (attempt < 7) throw away;
    return attempt;
  });
  assert.equal(answer, 7);
  assert.deepEqual(context.waits, [100, 200, 400, 800, 1000, 1000]);
  const jittered = countingContext(0);
  await persist(patience, jittered, async (attempt) => {
    if (attempt < 3) throw away;
  });
  assert.deepEqual(jittered.waits, [50, 100]);
});

test('patience ends, and the error then says what was tried', async () => {
  const context = countingContext();
  const failing = persist(patience, context, () => Promise.reject(away));
  await assert.rejects(
    failing,
    (error) =>
      isHoldfastError(error, 'store-failed') && /^8 attempts over \d+ s$/.test(error.tried!) && error.remedy === 'Wait',
  );
  assert.ok(context.clock.monotonicMs() <= patience.totalMs);
});

test('what will not pass is not tried again, nor anything after a cancellation', async () => {
  const context = countingContext();
  await assert.rejects(
    persist(patience, context, () => Promise.reject(new HoldfastError('forbidden', 'no'))),
    /no/,
  );
  await assert.rejects(
    persist(patience, context, () => Promise.reject(new TypeError('a bug'))),
    TypeError,
  );
  const stop = new AbortController();
  const cancelled = persist(patience, { ...context, signal: stop.signal }, async () => {
    stop.abort(new Error('stopped'));
    throw away;
  });
  await assert.rejects(cancelled, /stopped/);
  assert.deepEqual(context.waits, []);
});

test('what was stopped is not tried again, however retryable it is for whoever comes next', async () => {
  const context = countingContext();
  const stopped = new HoldfastError('cancelled', 'stopped for now', { retryable: true });
  await assert.rejects(
    persist(patience, context, async () => {
      throw stopped;
    }),
    stopped,
  );
  assert.deepEqual(context.waits, []);
});
