import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomDisks } from '../campaigns/random-disks.ts';

test('every generation of random disks, changed at random and backed up by change list, restores bit-exact', async () => {
  const result = await randomDisks({ disks: 12, disksAMachine: 12, seed: 20_261, restoreAll: true });
  assert.deepEqual(result.failures, []);
  assert.equal(result.restores, 12 * 5);
});
