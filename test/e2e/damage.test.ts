import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Id } from '#contract/ids.ts';
import { runBackup } from '#edge/engine/backup/backup.ts';
import { isSound, verifyVault } from '#edge/engine/restore/verify.ts';
import type { Extent } from '#edge/sources/disk.ts';
import { STATE_KEY } from '#repository/names.ts';
import { damageCampaign } from '../campaigns/damage.ts';
import { makeSmallVault, restore } from '../damage/small-vault.ts';
import type { TestVault } from '../test-vault.ts';

test('a damaged object of a vault never gives wrong bytes: exact, or a typed error, and verify reports it', async () => {
  const counts = await damageCampaign({ seed: 7, flips: 252, restoreEvery: 23, verifyEvery: 47, wholeEvery: 5 });
  assert.deepEqual(counts.failures, []);
  assert.ok(counts.refused > 100 && counts.exact > 100, `refused ${counts.refused}, exact ${counts.exact}`);
  assert.ok(counts.reported > 10, `${counts.reported} damages reported by verify`);
});

test('a vault that lost its state goes on: old points restore, and a new one builds on them', async () => {
  await using small = await makeSmallVault(8);
  const { vault, context, folder } = small.test;
  await vault.blobs.delete(STATE_KEY);
  const [disk] = small.disks;
  assert.ok((await restore(small, disk!)).equals(disk!.content));
  const content = Buffer.from(small.disks.at(-1)!.content);
  content.write('changed');
  const machine = small.disks.at(-1)!.machine;
  const point = await backup(small.test, machine, content, [{ offset: 0, length: 7 }]);
  for (const known of [...small.disks, { machine, point, diskIndex: 0, content }])
    assert.ok((await restore(small, known)).equals(known.content), known.point);
  assert.ok(isSound(await verifyVault(vault, { ...context, cacheDir: join(folder, 'verify') }, true)));
});

test('nothing is built on a point whose maps the vault has lost: the disk is read whole', async () => {
  await using small = await makeSmallVault(9);
  const { vault } = small.test;
  for (const key of small.objects.keys())
    if (key.startsWith('index/') || key.startsWith('state/')) await vault.blobs.delete(key);
  const { machine, content } = small.disks.at(-1)!;
  const changed = Buffer.from(content);
  changed.write('changed');
  const point = await backup(small.test, machine, changed, [{ offset: 0, length: 7 }]);
  assert.ok((await restore(small, { machine, point, diskIndex: 0, content: changed })).equals(changed));
});

test('a point’s object in the place of another is refused, not restored', async () => {
  await using small = await makeSmallVault(10);
  const [first, second] = [...small.objects].filter(([key]) => key.startsWith('points/'));
  small.blobs.damage(first![0], second![1]);
  const disk = small.disks.find(({ point }) => first![0].endsWith(point))!;
  await assert.rejects(restore(small, disk), { code: 'damaged', message: /holds another point/ });
});

async function backup(
  { vault, context, folder }: TestVault,
  machine: Id<'machine'>,
  content: Buffer,
  changed: readonly Extent[],
): Promise<Id<'point'>> {
  const path = join(folder, 'disk.img');
  await writeFile(path, content);
  const disk = { name: 'disk 0', locator: { kind: 'file', path } as const, sizeBytes: content.length, changed };
  return (await runBackup({ vault, machine: { id: machine, name: 'machine' }, disks: [disk] }, context)).point;
}
