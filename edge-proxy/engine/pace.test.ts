import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pace } from './pace.ts';

test('a pace lets the first bytes go at once and the next when those are paid for', async () => {
  let nowMs = 1000;
  const waits: number[] = [];
  const clock = {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    sleep: async (ms: number) => {
      waits.push(ms);
      nowMs += ms;
    },
  };
  const { signal } = new AbortController();
  const pace = new Pace(clock, 1_000_000);
  await pace.take(500_000, signal);
  await pace.take(250_000, signal);
  await pace.take(1, signal);
  assert.deepEqual(waits, [500, 250]);
  nowMs += 10_000; // idle time is not saved up
  await pace.take(2_000_000, signal);
  await pace.take(1, signal);
  assert.deepEqual(waits, [500, 250, 2000]);
  const free = new Pace(clock, undefined);
  await free.take(1e12, signal);
  assert.equal(waits.length, 3);
});
