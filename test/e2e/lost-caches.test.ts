import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeId } from '#contract/ids.ts';
import { runBackup } from '#edge/engine/backup/backup.ts';
import { runRestore } from '#edge/engine/restore/restore.ts';
import { SeededRandom } from '../random.ts';
import { makeTestVault } from '../test-vault.ts';

const SEGMENT = 16 * 1024 * 1024;

test('a proxy that lost its caches between deltas of one segment still chains them rightly', async () => {
  const random = new SeededRandom(4);
  await using test = await makeTestVault();
  const { vault, context, folder } = test;
  const machine = { id: makeId('machine', 1, random.bytes(10)), name: 'm' };
  const path = join(folder, 'disk.img');
  const disk = random.fill(Buffer.alloc(2 * SEGMENT + 5000));
  const backUp = async (changedAt?: number) => {
    if (changedAt !== undefined) random.fill(disk.subarray(changedAt, changedAt + 4096));
    await writeFile(path, disk);
    const changed = changedAt === undefined ? {} : { changed: [{ offset: changedAt, length: 4096 }] };
    await runBackup(
      { vault, machine, disks: [{ name: 'd', locator: { kind: 'file', path }, sizeBytes: disk.length, ...changed }] },
      context,
    );
  };
  const forget = () => rm(context.cacheDir, { recursive: true, force: true });
  await backUp();
  await backUp(8192); // a delta on the first segment …
  await forget();
  await backUp(SEGMENT + 8192); // … of which the proxy, in working on the second, learns no more than the id …
  await backUp(40_960); // … and now puts another delta upon it
  const restored = join(folder, 'restored.img');
  await runRestore(
    { vault, machine: machine.id, point: 'latest', diskIndex: 0, target: { kind: 'file', path: restored } },
    context,
  );
  assert.ok((await readFile(restored)).equals(disk));
});
