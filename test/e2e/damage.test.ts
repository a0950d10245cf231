import assert from 'node:assert/strict';
import { test } from 'node:test';
import { damageCampaign } from '../campaigns/damage.ts';

test('a damaged object of a vault never gives wrong bytes: exact, or a typed error, and verify reports it', async () => {
  const counts = await damageCampaign({ seed: 7, flips: 360, restoreEvery: 23, verifyEvery: 47, wholeObjects: true });
  assert.deepEqual(counts.failures, []);
  assert.ok(counts.refused > 100 && counts.exact > 100, `refused ${counts.refused}, exact ${counts.exact}`);
  assert.ok(counts.reported > 20, `${counts.reported} damages reported by verify`);
});
