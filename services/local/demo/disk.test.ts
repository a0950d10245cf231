import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { changeDisk } from './change.ts';
import { buildDisk, buildSibling } from './disk.ts';
import { runProgram } from './program.ts';
import { oltpChanges, scatterChanges } from './scatter.ts';

const MiB = 2 ** 20;
const folder = mkdtempSync(join(tmpdir(), 'holdfast-disk-test-'));
after(() => rmSync(folder, { recursive: true }));
const plan = {
  path: join(folder, 'disk.img'),
  sizeBytes: 64 * MiB,
  seed: 'a',
  roots: ['/usr/bin', '/usr/share/perl', '/usr/lib/ssl'],
};
const skip = await runProgram('debugfs', ['-V']).then(
  () => false,
  () => 'needs debugfs: apt-get install e2fsprogs',
);

function hash(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

function copyOf(path: string, name: string): string {
  const to = join(folder, name);
  copyFileSync(path, to);
  return to;
}

function isSound(path: string): boolean {
  return spawnSync('e2fsck', ['-fn', path], { env: { PATH: '/usr/sbin:/sbin:/usr/bin:/bin' } }).status === 0;
}

/** Pages that differ between two disks. */
function differences(a: string, b: string): Set<number> {
  const [one, other] = [readFileSync(a), readFileSync(b)];
  const found = new Set<number>();
  for (let at = 0; at < one.length; at += 4096) {
    if (!one.subarray(at, at + 4096).equals(other.subarray(at, at + 4096))) found.add(at / 4096);
  }
  return found;
}

function pagesOf(extents: readonly { offset: number; length: number }[]): Set<number> {
  return new Set(
    extents.flatMap(({ offset, length }) => Array.from({ length: length / 4096 }, (_, i) => offset / 4096 + i)),
  );
}

describe('a demo disk', { skip }, async () => {
  let seen = 0;
  const built = skip ? undefined : await buildDisk({ ...plan, onProgress: (done, total) => (seen = done / total) });

  test('has the size asked for, a sound file system, and the files it reports', () => {
    assert.equal(statSync(plan.path).size, plan.sizeBytes);
    assert.ok(isSound(plan.path));
    const { realBytes, databaseBytes, madeUpBytes, files } = built!;
    const content = realBytes + databaseBytes + madeUpBytes;
    assert.ok(content > 0.68 * plan.sizeBytes && content <= 0.73 * plan.sizeBytes, `${content} bytes`);
    assert.ok(files > 10);
    assert.ok(seen > 0.99 && seen <= 1, `progress ended at ${seen}`);
  });

  test('is the same for the same seed, and another for another', async () => {
    const again = { ...plan, path: join(folder, 'again.img') };
    await buildDisk(again);
    assert.equal(hash(again.path), hash(plan.path));
    await buildDisk({ ...again, seed: 'b' });
    assert.notEqual(hash(again.path), hash(plan.path));
  });

  test('has a sibling with mostly the same files in other places', async () => {
    const sibling = join(folder, 'sibling.img');
    await buildSibling({ ...plan, path: sibling });
    assert.ok(isSound(sibling));
    const pages = (path: string) => {
      const bytes = readFileSync(path);
      return Array.from({ length: bytes.length / 4096 }, (_, i) => hashOf(bytes.subarray(i * 4096, (i + 1) * 4096)));
    };
    const [own, other] = [pages(plan.path), pages(sibling)];
    const known = new Set(own);
    const zero = hashOf(Buffer.alloc(4096));
    const data = other.filter((page) => page !== zero);
    const shared = data.filter((page) => known.has(page)).length / data.length;
    const inPlace = other.filter((page, i) => page !== zero && page === own[i]).length / data.length;
    assert.ok(shared > 0.6 && shared < 0.97, `${shared} shared`);
    assert.ok(inPlace < 0.3, `${inPlace} in place`);
  });

  test('changes in a day like a disk in use and stays sound', async () => {
    const path = copyOf(plan.path, 'day.img');
    const { written, removed } = await changeDisk({ path, seed: 'monday', bytes: 2 * MiB });
    assert.ok(written > 5 && removed > 0);
    assert.ok(isSound(path));
    const changed = differences(plan.path, path).size * 4096;
    assert.ok(changed >= 2 * MiB && changed < 6 * MiB, `${changed} bytes changed`);
    const friday = await changeDisk({ path, seed: 'friday', bytes: MiB });
    assert.ok(friday.written > 0 && isSound(path));
  });

  test('changes in scattered runs of at most 64 KiB exactly where the list says', async () => {
    const path = copyOf(plan.path, 'scattered.img');
    const extents = await scatterChanges({ path, share: 0.02, seed: 'x' });
    assert.deepEqual(differences(plan.path, path), pagesOf(extents));
    assert.equal(pagesOf(extents).size, Math.floor((plan.sizeBytes / 4096) * 0.02));
    assert.ok(extents.length > 20);
  });

  test('changes like a busy database, in single pages exactly where the list says', async () => {
    const path = copyOf(plan.path, 'oltp.img');
    const extents = await oltpChanges({ path, seed: 'x', dirtyBytes: 400_000 });
    assert.deepEqual(differences(plan.path, path), pagesOf(extents));
    assert.equal(pagesOf(extents).size, 98);
    assert.ok(isSound(path));
  });

  test('is refused when the files cannot fit', async () => {
    await assert.rejects(buildDisk({ ...plan, contentBytes: plan.sizeBytes }), (error) =>
      isHoldfastError(error, 'usage'),
    );
  });

  test('stops when asked to, and leaves nothing but the file', async () => {
    const interruption = new AbortController();
    const path = join(folder, 'stopped.img');
    const building = buildDisk({ ...plan, path, signal: interruption.signal, onProgress: () => interruption.abort() });
    await assert.rejects(building, (error) => isHoldfastError(error, 'cancelled'));
  });
});

function hashOf(page: Uint8Array): string {
  return createHash('sha1').update(page).digest('base64');
}
