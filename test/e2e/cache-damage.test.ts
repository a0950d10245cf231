import assert from 'node:assert/strict';
import { copyFile, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { HoldfastError } from '#contract/errors.ts';
import { type Id, makeId } from '#contract/ids.ts';
import { runBackup } from '#edge/engine/backup/backup.ts';
import { RestoreJournal } from '#edge/engine/restore/restore-journal.ts';
import { vaultFolder } from '#edge/engine/vault-reading.ts';
import type { Extent } from '#edge/sources/disk.ts';
import { change, restore } from '../damage/small-vault.ts';
import { flipped } from '../damage/trial.ts';
import { SeededRandom } from '../random.ts';
import { makeTestVault, type TestVault } from '../test-vault.ts';

const PAGE = 4096;
const FLIPS_A_FILE = 5;

/** A machine of one small disk and the folder of what the proxy remembers of it. */
class Machine {
  readonly #test: TestVault;
  readonly id: Id<'machine'>;
  readonly disk: Buffer;
  readonly state: string;

  constructor(test: TestVault, random: SeededRandom) {
    this.#test = test;
    this.id = makeId('machine', 1, random.bytes(10));
    this.disk = random.fill(Buffer.alloc(300 * PAGE + 77));
    this.disk.fill(0, 100 * PAGE, 130 * PAGE);
    this.state = join(vaultFolder(test.context, test.vault), 'disks', `${this.id}-0`);
  }

  async backup(changed?: readonly Extent[]): Promise<Id<'point'>> {
    const path = join(this.#test.folder, 'disk.img');
    await writeFile(path, this.disk);
    const disk = { name: 'disk', locator: { kind: 'file', path } as const, sizeBytes: this.disk.length };
    const machine = { id: this.id, name: 'machine' };
    const disks = [{ ...disk, ...(changed && { changed }) }];
    return (await runBackup({ vault: this.#test.vault, machine, disks }, this.#test.context)).point;
  }

  /** With the proxy's own caches, or with none. */
  async restored(point: Id<'point'>): Promise<Buffer> {
    return await restore({ test: this.#test }, { machine: this.id, point, diskIndex: 0, content: this.disk });
  }
}

async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

test('whatever bit of the proxy’s caches flips, the next backup is exact', async () => {
  await using vault = await makeTestVault();
  const random = new SeededRandom(11);
  const machine = new Machine(vault, random);
  await machine.backup();
  change(random, machine.disk);
  await machine.backup();
  const kinds = ['index', 'fingerprints', 'sums', 'table', 'state.json'];
  for (const kind of kinds) {
    for (let i = 0; i < FLIPS_A_FILE; i++) {
      const path = (await filesBelow(vaultFolder(vault.context, vault.vault))).find((file) => file.includes(kind));
      assert.ok(path, `there is a cache file ${kind}`);
      const content = await readFile(path);
      const bit = random.below(content.length * 8);
      await writeFile(path, flipped(content, bit));
      const changed = change(random, machine.disk);
      const point = await machine.backup(i % 2 === 0 ? changed : undefined);
      assert.ok((await machine.restored(point)).equals(machine.disk), `${kind}, bit ${bit}`);
    }
  }
});

test('fingerprints of an earlier image, as a loss of power may leave them, are not believed', async () => {
  await using vault = await makeTestVault();
  const machine = new Machine(vault, new SeededRandom(12));
  const fingerprints = join(machine.state, 'fingerprints');
  const kept = join(vault.folder, 'kept');
  await machine.backup();
  await copyFile(fingerprints, kept);
  const before = Buffer.from(machine.disk.subarray(0, PAGE));
  machine.disk.fill('new', 0, PAGE);
  await machine.backup();
  await copyFile(kept, fingerprints);
  before.copy(machine.disk); // to the old fingerprint this page has not changed; to the last point it has
  const point = await machine.backup();
  assert.ok((await machine.restored(point)).equals(machine.disk));
});

test('a table of leaves that was lost or cut leads to a full read, not to a hole', async () => {
  await using vault = await makeTestVault();
  const machine = new Machine(vault, new SeededRandom(13));
  await machine.backup();
  for (const length of [0, 39]) {
    const table = join(machine.state, 'table');
    await writeFile(table, (await readFile(table)).subarray(0, length));
    machine.disk.fill(`cut to ${length}`, 0, PAGE);
    const point = await machine.backup([{ offset: 0, length: PAGE }]);
    assert.ok((await machine.restored(point)).equals(machine.disk), `cut to ${length}`);
  }
});

test('a damaged journal of an interrupted backup costs sending, never bytes', async () => {
  let failing = false;
  await using vault = await makeTestVault({
    wrap: (inner) =>
      Object.assign(Object.create(inner), {
        putIfAbsent: async (key: string, ...rest: [readonly Uint8Array[]]) => {
          if (failing && key.startsWith('index/')) throw new HoldfastError('store-failed', 'The store is gone');
          return await inner.putIfAbsent(key, ...rest);
        },
        replaceIf: inner.replaceIf.bind(inner),
        get: inner.get.bind(inner),
        getRange: inner.getRange.bind(inner),
        head: inner.head.bind(inner),
        list: inner.list.bind(inner),
        delete: inner.delete.bind(inner),
      }),
  });
  const random = new SeededRandom(14);
  const machine = new Machine(vault, random);
  const journal = join(vaultFolder(vault.context, vault.vault), 'journal', machine.id);
  for (let i = 0; i < 6; i++) {
    random.fill(machine.disk.subarray(0, 40 * PAGE));
    failing = true;
    await assert.rejects(machine.backup(), { code: 'store-failed' });
    failing = false;
    for (const path of [journal, join(machine.state, i % 2 === 0 ? 'next.log' : 'next.table')]) {
      const content = await readFile(path);
      assert.ok(content.length > 0, path);
      await writeFile(path, flipped(content, random.below(content.length * 8)));
    }
    const point = await machine.backup();
    assert.ok((await machine.restored(point)).equals(machine.disk), `trial ${i}`);
  }
});

test('a step that a crash left half done is finished only if all of it is as it was written', async () => {
  await using vault = await makeTestVault();
  const random = new SeededRandom(15);
  const machine = new Machine(vault, random);
  await machine.backup();
  for (const name of ['none', 'next.json', 'next.table', 'next.log']) {
    change(random, machine.disk);
    // The cache as it is at the commit: the old state, and the new one in files of the name `next`.
    const interrupted = new Map<string, Buffer>();
    const { state } = vault.vault;
    const commit = state.commit.bind(state);
    state.commit = async (...args) => {
      for (const file of await filesBelow(machine.state)) interrupted.set(file, await readFile(file));
      await commit(...args);
    };
    await machine.backup();
    state.commit = commit;
    for (const [file, content] of interrupted) await writeFile(file, content);
    if (name !== 'none') {
      const path = join(machine.state, name);
      const content = await readFile(path);
      await writeFile(path, flipped(content, random.below(content.length * 8)));
    }
    const changed = change(random, machine.disk);
    const point = await machine.backup(name === 'next.log' ? undefined : changed);
    assert.ok((await machine.restored(point)).equals(machine.disk), name);
  }
});

test('a journal of a restore with a flipped digit is not used', async () => {
  await using vault = await makeTestVault();
  const path = join(vault.folder, 'restore');
  const journal = await RestoreJournal.open(path, 'this to there');
  await journal.add(0);
  await journal.add(1);
  assert.deepEqual([...(await RestoreJournal.open(path, 'this to there')).done], [0, 1]);
  await writeFile(path, (await readFile(path, 'utf8')).replace('[0,1]', '[0,3]'));
  assert.equal((await RestoreJournal.open(path, 'this to there')).done.size, 0);
});
