import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { HoldfastError } from '#contract/errors.ts';
import { makeId } from '#contract/ids.ts';
import { runBackup } from '#edge/engine/backup/backup.ts';
import type { Blobs } from '#ports/blobs.ts';
import { SeededRandom } from '../random.ts';
import { makeTestVault } from '../test-vault.ts';

test('a backup that is stopped while its last packs wait for a store that hangs ends at once', {
  timeout: 20_000,
}, async () => {
  const stop = new AbortController();
  const reason = new HoldfastError('cancelled', 'Stopped', { retryable: true });
  // A store that takes nothing and gives up only when it is told to.
  const putIfAbsent: Blobs['putIfAbsent'] = (_key, _parts, { signal } = {}) =>
    new Promise((_, reject) => {
      signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
      setTimeout(() => stop.abort(reason), 300);
    });
  const wrap = (blobs: Blobs): Blobs =>
    new Proxy(blobs, {
      get: (target, name) => {
        if (name === 'putIfAbsent') return putIfAbsent;
        const value = Reflect.get(target, name);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  await using place = await makeTestVault({ wrap });
  const random = new SeededRandom(9);
  const path = join(place.folder, 'disk.img');
  const sizeBytes = 1024 * 1024;
  await writeFile(path, random.bytes(sizeBytes));
  const disks = [{ name: 'root', locator: { kind: 'file', path } as const, sizeBytes }];
  const machine = { id: makeId('machine', 1, random.bytes(10)), name: 'mail' };
  const backup = runBackup({ vault: place.vault, machine, disks }, { ...place.context, signal: stop.signal });
  await assert.rejects(backup, reason);
});
