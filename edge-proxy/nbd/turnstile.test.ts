import assert from 'node:assert/strict';
import { it } from 'node:test';
import { BufferPool, Turnstile } from './turnstile.ts';

it('a turnstile lets in what fits by count and by weight, and the too heavy alone', async () => {
  const turnstile = new Turnstile(3, 10);
  await turnstile.enter(4);
  await turnstile.enter(6);
  let inside = 0;
  const light = turnstile.enter(1).then(() => inside++);
  await Promise.resolve();
  assert.equal(inside, 0, 'over weight');
  turnstile.leave(6);
  await light;
  await turnstile.enter(0);
  const fourth = turnstile.enter(0).then(() => inside++);
  await Promise.resolve();
  assert.equal(inside, 1, 'over count');
  turnstile.leave(4);
  await fourth;
  const heavy = turnstile.enter(99).then(() => inside++);
  for (const weight of [1, 0]) turnstile.leave(weight);
  await Promise.resolve();
  assert.equal(inside, 2, 'not alone');
  turnstile.leave(0);
  await heavy;
  turnstile.leave(99);
  await turnstile.empty();
});

it('a buffer pool gives a returned buffer again, and keeps no more than it may', () => {
  const pool = new BufferPool(1);
  const [a, b] = [pool.take(1000), pool.take(1000)];
  assert.ok(a.length >= 1000 && a !== b);
  pool.give(a);
  pool.give(b);
  assert.equal(pool.take(2000), a);
  assert.notEqual(pool.take(2000), b);
  assert.equal(pool.take(50_000_000).length, 50_000_000);
});
