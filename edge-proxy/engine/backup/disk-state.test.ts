import assert from 'node:assert/strict';
import {
  closeSync,
  cpSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { FRESH_LEAF } from '#repository/leaf.ts';
import { sha256 } from '#repository/sha256.ts';
import { dieAt } from '#test/fixtures/dying-files.ts';
import { DiskState } from './disk-state.ts';
import { readFingerprints, recordAll, recordSome } from './fingerprints.ts';
import { LeafTable } from './unit.ts';

const root = mkdtempSync(join(tmpdir(), 'holdfast-disk-state-'));
after(() => rmSync(root, { recursive: true, force: true }));
const SIZE = 20 * 1024 * 1024; // two segments
const PAGES = 40;

/** A disk by the content of its first pages, as a number each. */
interface Disk {
  readonly root: string;
  readonly pages: readonly number[];
}
const A: Disk = { root: 'aa'.repeat(32), pages: Array.from({ length: PAGES }, (_, i) => i + 1) };
const B: Disk = { root: 'bb'.repeat(32), pages: A.pages.map((page) => (page % 3 === 0 ? page + 1000 : page)) };

const hashOf = (page: number) => sha256(Buffer.from([page, page >> 8]));
const hashesOf = (disk: Disk) => Buffer.concat(disk.pages.map(hashOf));
const zero = new Uint8Array(PAGES);

function tableOf(disk: Disk): LeafTable {
  const table = LeafTable.allocate(2);
  table.setLeaf(0, Buffer.from(disk.root, 'hex'), FRESH_LEAF);
  table.setZero(1);
  return table;
}

/** Backs B up on top of A: only pages that differ are recorded. */
async function advance(folder: string): Promise<void> {
  const { state, known } = await DiskState.open(folder, A.root, SIZE);
  assert.ok(known);
  const differing = B.pages.flatMap((page, i) => (page === A.pages[i] ? [] : [i]));
  state.log(recordSome(0, differing.slice(0, 5), hashesOf(B), zero));
  state.log(recordSome(0, differing.slice(5), hashesOf(B), zero));
  await state.prepare(B.root, SIZE, tableOf(B));
  await state.finish();
}

let folders = 0;
async function atA(): Promise<string> {
  const folder = join(root, String(folders++));
  const { state, known } = await DiskState.open(folder, undefined, SIZE);
  assert.equal(known, undefined);
  state.log(recordAll(0, PAGES, hashesOf(A), zero));
  await state.prepare(A.root, SIZE, tableOf(A));
  await state.finish();
  return folder;
}

/** Which disk the folder answers for when asked for it: the disk, or nothing. Fails on a mixture. */
async function answerFor(folder: string, disk: Disk): Promise<boolean> {
  const copy = `${folder}-${disk === A ? 'a' : 'b'}`;
  cpSync(folder, copy, { recursive: true });
  const { known } = await DiskState.open(copy, disk.root, SIZE);
  if (known === undefined) return false;
  assert.deepEqual(Buffer.from(known.table.bytes), Buffer.from(tableOf(disk).bytes), 'the table is the image’s');
  const fingerprints = Buffer.alloc(4096 * 16);
  const descriptor = openSync(known.fingerprintsPath, 'r');
  readFingerprints(descriptor, Buffer.from(known.sums), 0, fingerprints);
  closeSync(descriptor);
  disk.pages.forEach((page, i) => {
    const found = fingerprints.subarray(i * 16, i * 16 + 16);
    // After a crash in the middle a page may be unknown, which costs reading it again; it is never an old one's.
    const unknown = found.equals(Buffer.alloc(16));
    assert.ok(unknown || found.equals(hashOf(page).subarray(0, 16)), `page ${i} has the image’s fingerprint`);
  });
  rmSync(copy, { recursive: true });
  return true;
}

describe('what a proxy remembers of a disk', () => {
  it('belongs to the image that was committed last, and to no other', async () => {
    const folder = await atA();
    assert.equal(await answerFor(folder, A), true);
    assert.equal(await answerFor(folder, B), false);
    await advance(folder);
    assert.equal(await answerFor(folder, B), true);
    assert.equal(await answerFor(folder, A), false);
    const { known } = await DiskState.open(folder, B.root, SIZE + 1);
    assert.equal(known, undefined, 'a disk of another size is another disk');
  });

  it('stays as it was when a backup ends without a point', async () => {
    const folder = await atA();
    const { state } = await DiskState.open(folder, A.root, SIZE);
    state.log(recordAll(0, PAGES, hashesOf(B), zero));
    await state.prepare(B.root, SIZE, tableOf(B));
    state.close(); // the commit failed
    assert.equal(await answerFor(folder, A), true);
  });

  it('after a crash at any step is the old image’s, the new one’s or nothing, but never a mixture', async () => {
    const seen = { old: 0, new: 0, nothing: 0 };
    for (const how of ['before', 'torn', 'after'] as const) {
      for (let act = 0; ; act++) {
        assert.ok(act < 60, 'the work ends');
        const folder = await atA();
        const died = await dieAt(act, how, () => advance(folder));
        const old = await answerFor(folder, A);
        const next = await answerFor(folder, B);
        // Once fingerprints of the new image may have been written, the old one's are gone.
        if (old) seen.old++;
        if (next) seen.new++;
        if (!old && !next) seen.nothing++;
        if (!died) {
          assert.equal(next, true);
          break;
        }
      }
    }
    assert.ok(seen.old >= 6 && seen.new >= 12, JSON.stringify(seen));
    assert.equal(seen.nothing, 0, 'one of the two is always known');
  });

  it('is nothing when a loss of power has taken a part of the log: old fingerprints would hide changes', async () => {
    for (const spoil of [
      (path: string) => truncateSync(path, 0),
      (path: string) => truncateSync(path, 100),
      (path: string) => writeFileSync(path, Buffer.alloc(readFileSync(path).length)),
    ]) {
      const folder = await atA();
      const { state } = await DiskState.open(folder, A.root, SIZE);
      state.log(recordAll(0, PAGES, hashesOf(B), zero));
      await state.prepare(B.root, SIZE, tableOf(B)); // the commit succeeds, then the lights go out
      spoil(join(folder, 'next.log'));
      const opened = await DiskState.open(folder, B.root, SIZE);
      assert.equal(opened.known, undefined);
      assert.equal(await answerFor(folder, A), false);
    }
  });

  it('does not fail the backup when its disk is full', {
    skip: process.platform === 'linux' ? false : 'needs /dev/full (Linux)',
  }, async () => {
    const folder = await atA();
    const { state } = await DiskState.open(folder, A.root, SIZE);
    symlinkSync('/dev/full', join(folder, 'next.log'));
    state.log(recordAll(0, PAGES, hashesOf(B), zero));
    await state.prepare(B.root, SIZE, tableOf(B));
    await state.finish();
    rmSync(join(folder, 'next.log'));
    assert.equal(await answerFor(folder, B), false);
    assert.equal(await answerFor(folder, A), true);
  });
});
