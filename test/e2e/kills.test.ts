import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { kills } from '../campaigns/kills.ts';

const skip = spawnSync('qemu-img', ['--version']).status === 0 ? false : 'needs qemu-img: apt-get install qemu-utils';

// The campaign has hundreds of moments (`npm run campaign:kills`); these few tell whether it would find anything.
test('after kill -9 of proxy, control plane or command, work goes on, comes out identical and stores nothing twice', {
  skip,
  timeout: 240_000,
}, async () => {
  const records = await kills({
    kills: 3,
    seed: 20_261,
    victims: ['proxy', 'control plane', 'command'],
    dataMib: 24,
    stretches: 1,
    usualMs: { backup: 1200, restore: 800 },
  });
  assert.deepEqual(
    records.filter(({ problems }) => problems.length > 0),
    [],
  );
  assert.equal(records.length, 3 * 3 * 2);
  assert.ok(
    records.some(({ afterTheEnd }) => !afterTheEnd),
    'some kills came in the middle of the work',
  );
});
