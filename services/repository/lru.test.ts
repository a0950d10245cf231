import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { remember } from './lru.ts';

describe('remember', () => {
  const made: string[] = [];
  const cache = new Map<string, Promise<string>>();
  const get = (key: string, limit = 3) =>
    remember(cache, key, limit, async () => {
      made.push(key);
      return key.toUpperCase();
    });

  it('makes a value once, and forgets the ones used least recently', async () => {
    for (const key of ['a', 'b', 'c', 'a', 'd']) assert.equal(await get(key), key.toUpperCase());
    assert.deepEqual([...cache.keys()], ['c', 'a', 'd'], 'b was used least recently');
    assert.deepEqual(made, ['a', 'b', 'c', 'd']);
    await get('b');
    assert.deepEqual(made, ['a', 'b', 'c', 'd', 'b']);
  });

  it('lets those who ask at once share one making', async () => {
    made.length = 0;
    const all = await Promise.all([get('x'), get('x'), get('x')]);
    assert.deepEqual(all, ['X', 'X', 'X']);
    assert.deepEqual(made, ['x']);
  });

  it('forgets a failure, so that the next one tries again', async () => {
    await assert.rejects(remember(cache, 'f', 3, () => Promise.reject(new Error('no'))));
    assert.equal(await get('f'), 'F');
  });
});
