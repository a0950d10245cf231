import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeId } from '#contract/ids.ts';
import { runBackup } from '#edge/engine/backup/backup.ts';
import { runRestore } from '#edge/engine/restore/restore.ts';
import { SeededRandom } from '../random.ts';
import { makeTestVault } from '../test-vault.ts';

test('forced ranges are read and mapped anew although neither the change list nor the fingerprints name them', async () => {
  const random = new SeededRandom(5);
  await using test = await makeTestVault();
  const { vault, context, folder } = test;
  const machine = { id: makeId('machine', 1, random.bytes(10)), name: 'm' };
  const path = join(folder, 'disk.img');
  const disk = random.fill(Buffer.alloc(3_000_000));
  await writeFile(path, disk);
  const base = { name: 'd', locator: { kind: 'file', path }, sizeBytes: disk.length } as const;
  await runBackup({ vault, machine, disks: [base] }, context);
  const forced = [{ offset: 100_000, length: 8192 }];
  const byList = await runBackup({ vault, machine, disks: [{ ...base, changed: [], forced }] }, context);
  assert.equal(byList.stats.readBytes, 3 * 4096, 'the pages that 8 KiB at an odd offset touch');
  assert.equal(byList.stats.newBytes, 3 * 4096);
  const byReading = await runBackup({ vault, machine, disks: [{ ...base, forced }] }, context);
  assert.equal(byReading.stats.newBytes, 0, 'the same pages are known by now');
  assert.equal(byReading.stats.knownChunks, 1);
  const restored = join(folder, 'restored.img');
  await runRestore(
    { vault, machine: machine.id, point: 'latest', diskIndex: 0, target: { kind: 'file', path: restored } },
    context,
  );
  assert.ok((await readFile(restored)).equals(disk));
});
