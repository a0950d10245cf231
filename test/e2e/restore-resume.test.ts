import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { open, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { HoldfastError } from '#contract/errors.ts';
import { makeId } from '#contract/ids.ts';
import { runBackup } from '#edge/engine/backup/backup.ts';
import { runRestore } from '#edge/engine/restore/restore.ts';
import { restoreToFile } from '#edge/engine/restore/restore-image.ts';
import type { Blobs } from '#ports/blobs.ts';
import { SeededRandom } from '../random.ts';
import { makeTestVault } from '../test-vault.ts';

const WINDOW_BYTES = 512 * 2 ** 20;
const BLOCK_BYTES = 64 * 1024;

/** A vault with a sparse disk of three windows, a block of noise in each, and a store that can break off. */
async function vaultWithDisk() {
  const store = { callsLeft: Number.POSITIVE_INFINITY, onBreak: () => {} };
  const wrap = (blobs: Blobs): Blobs => {
    const getRange: Blobs['getRange'] = async (...args) => {
      if (store.callsLeft-- > 0) return blobs.getRange(...args);
      store.onBreak();
      await pause(100); // what was fetched before gets through
      throw new HoldfastError('store-failed', 'The store is gone');
    };
    return new Proxy(blobs, {
      get: (target, name) => {
        if (name === 'getRange') return getRange;
        const value = Reflect.get(target, name);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  };
  const made = await makeTestVault({ wrap });
  const random = new SeededRandom(5);
  const blocks = [0, 1, 2].map((window) => ({
    offset: window * WINDOW_BYTES,
    data: Buffer.from(random.bytes(BLOCK_BYTES)),
  }));
  const disk = join(made.folder, 'disk.img');
  const file = await open(disk, 'w');
  for (const { offset, data } of blocks) await file.write(data, 0, data.length, offset);
  await file.close();
  const sizeBytes = 2 * WINDOW_BYTES + BLOCK_BYTES;
  const allocated = blocks.map(({ offset, data }) => ({ offset, length: data.length }));
  const machine = { id: makeId('machine', 1, random.bytes(10)), name: 'mail' };
  const disks = [{ name: 'root', locator: { kind: 'file', path: disk } as const, sizeBytes, allocated }];
  await runBackup({ vault: made.vault, machine, disks }, made.context);
  const request = { vault: made.vault, machine: machine.id, point: 'latest', diskIndex: 0 } as const;
  return { ...made, store, blocks, request, [Symbol.asyncDispose]: () => made[Symbol.asyncDispose]() };
}

async function expectBlocks(path: string, blocks: readonly { offset: number; data: Buffer }[]): Promise<void> {
  await using file = await open(path);
  for (const { offset, data } of blocks) {
    const { buffer } = await file.read(Buffer.alloc(data.length), 0, data.length, offset);
    assert.ok(buffer.equals(data), `the bytes from ${offset}`);
  }
}

test('a restore whose unfinished file was removed begins anew, also if it breaks off again before its first window', async () => {
  await using place = await vaultWithDisk();
  const { store, request, context, folder, vault } = place;
  const path = join(folder, 'restored.img');
  const restore = () => runRestore({ ...request, target: { kind: 'file', path } }, context);
  const journals = join(context.cacheDir, vault.id, 'restores');
  const doneWindows = async () => {
    const name = (await readdir(journals).catch(() => [])).find((file) => !file.endsWith('.new'));
    return name === undefined ? 0 : JSON.parse(await readFile(join(journals, name), 'utf8')).doneWindows.length;
  };
  for (let calls = 1; (await doneWindows()) === 0; calls++) {
    assert.ok(calls < 20, 'no break-off left a window done');
    store.callsLeft = calls;
    await assert.rejects(restore(), { code: 'store-failed' });
  }
  await rm(path);
  store.callsLeft = 0;
  await assert.rejects(restore(), { code: 'store-failed' });
  store.callsLeft = Number.POSITIVE_INFINITY;
  const { stats } = await restore();
  await expectBlocks(path, place.blocks);
  assert.equal(stats.resumedBytes, 0);
});

test('a restore that is stopped for now keeps its unfinished file; one that is given up leaves none', async () => {
  await using place = await vaultWithDisk();
  const path = join(place.folder, 'restored.img');
  for (const retryable of [true, false]) {
    const stop = new AbortController();
    place.store.callsLeft = 0;
    place.store.onBreak = () => stop.abort(new HoldfastError('cancelled', 'Stopped', { retryable }));
    await assert.rejects(
      restoreToFile(place.request, { path, format: 'raw' }, { ...place.context, signal: stop.signal }),
    );
    assert.equal(existsSync(`${path}.partial`), retryable);
  }
  assert.ok(!existsSync(path));
});
