import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { seededRandom } from '#test/compat/seeded-random.ts';
import { addToFilter, filterBytes, filterMayHave } from './filter.ts';

const random = seededRandom('filter');

describe('the filter', () => {
  it('passes everything that was added and about 1.3 % of what was not', () => {
    for (const keys of [1, 100, 20_000]) {
      const added = Buffer.from(random.bytes(keys * 16));
      const absent = Buffer.from(random.bytes(20_000 * 16));
      const filter = new Uint8Array(filterBytes(keys));
      for (let at = 0; at < added.length; at += 16) addToFilter(filter, added, at);
      for (let at = 0; at < added.length; at += 16) assert.ok(filterMayHave(filter, added, at));
      let passed = 0;
      for (let at = 0; at < absent.length; at += 16) if (filterMayHave(filter, absent, at)) passed++;
      assert.ok(passed / 20_000 < 0.02, `${passed} of 20,000 pass with ${keys} keys`);
    }
  });

  it('takes 10 bits a key, in blocks of 64 bytes', () => {
    assert.deepEqual([0, 1, 51, 52, 100_000].map(filterBytes), [64, 64, 64, 128, 125_056]);
  });
});
