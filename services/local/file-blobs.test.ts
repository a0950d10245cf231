import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { syncToDisk } from './blobs/durable-folders.ts';
import { openFileBlobs } from './file-blobs.ts';
import { systemClock } from './system-clock.ts';
import { systemRandom } from './system-random.ts';

const settings = { clock: systemClock, random: systemRandom };
const failsWith = (code: Parameters<typeof isHoldfastError>[1]) => (error: unknown) => isHoldfastError(error, code);
const bytes = (text: string) => Buffer.from(text);
const ioError = () => Object.assign(new Error('EIO: i/o error, fsync'), { code: 'EIO' });

describe('A store of files', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'holdfast-files-'));
  });
  after(() => rm(folder, { recursive: true }));

  it('is readable as what it is: each object a file under its key', async () => {
    await using blobs = await openFileBlobs(join(folder, 'plain'), settings);
    await blobs.putIfAbsent('packs/ab/one', [bytes('x')]);
    await blobs.replaceIf('state/vault', bytes('y'), null);
    const found = await readdir(join(folder, 'plain'), { recursive: true });
    const visible = found.filter((name) => !name.startsWith('.')).sort();
    assert.deepEqual(visible, ['packs', 'packs/ab', 'packs/ab/one', 'state', 'state/vault']);
    assert.deepEqual(await readdir(join(folder, 'plain', '.holdfast', 'temporary')), []);
  });

  it('opens for reading only without touching the folder', async () => {
    const root = join(folder, 'copied');
    await mkdir(join(root, 'packs'), { recursive: true });
    await writeFile(join(root, 'packs', 'one'), 'x');
    await using blobs = await openFileBlobs(root, { ...settings, readOnly: true });
    assert.equal((await blobs.list('')).blobs.length, 1);
    assert.equal((await blobs.head('packs/one'))!.sizeBytes, 1);
    await assert.rejects(blobs.putIfAbsent('packs/two', []), failsWith('usage'));
    await assert.rejects(blobs.delete('packs/one'), failsWith('usage'));
    assert.deepEqual(await readdir(root), ['packs']);
    await assert.rejects(
      openFileBlobs(join(folder, 'absent'), { ...settings, readOnly: true }),
      failsWith('not-found'),
    );
  });

  it('fails a put whose content could not be forced to the disk, and leaves nothing', async () => {
    let fails = true;
    await using blobs = await openFileBlobs(join(folder, 'sync-file'), {
      ...settings,
      sync: async (handle, what) => {
        if (fails && what === 'file') throw ioError();
        await syncToDisk(handle, what);
      },
    });
    await assert.rejects(blobs.putIfAbsent('a', [bytes('x')]), failsWith('store-failed'));
    await assert.rejects(blobs.replaceIf('b', bytes('x'), null), failsWith('store-failed'));
    assert.deepEqual((await blobs.list('')).blobs, []);
    assert.deepEqual(await readdir(join(folder, 'sync-file', '.holdfast', 'temporary')), []);
    fails = false;
    assert.equal(await blobs.putIfAbsent('a', [bytes('x')]), 'created');
  });

  it('writes nothing more once a name could not be forced to the disk: a second fsync would lie', async () => {
    let fails = false;
    await using blobs = await openFileBlobs(join(folder, 'sync-folder'), {
      ...settings,
      sync: async (handle, what) => {
        if (fails && what === 'folder') throw ioError();
        await syncToDisk(handle, what);
      },
    });
    await blobs.putIfAbsent('x/a', [bytes('x')]);
    fails = true;
    await assert.rejects(blobs.putIfAbsent('x/b', [bytes('x')]), failsWith('store-failed'));
    fails = false;
    for (const key of ['x/b', 'x/c', 'y/d']) {
      await assert.rejects(blobs.putIfAbsent(key, [bytes('x')]), failsWith('store-failed'), key);
    }
    assert.equal((await blobs.head('x/a'))!.sizeBytes, 1, 'reading goes on');
  });

  it('does not take an unmounted or exchanged folder for an empty store', async () => {
    const root = join(folder, 'mounted');
    await using blobs = await openFileBlobs(root, settings);
    await blobs.putIfAbsent('a', [bytes('x')]);
    await rename(root, join(folder, 'moved'));
    for (const isEmptyThere of [false, true]) {
      if (isEmptyThere) await mkdir(join(root, '.holdfast', 'temporary'), { recursive: true });
      await assert.rejects(blobs.list(''), failsWith('store-failed'));
      await assert.rejects(blobs.get('a'), failsWith('store-failed'));
      await assert.rejects(blobs.putIfAbsent('b', []), failsWith('store-failed'));
    }
  });

  it('refuses a key that continues an object, or that is a folder of objects', async () => {
    await using blobs = await openFileBlobs(join(folder, 'nested'), settings);
    await blobs.putIfAbsent('a/b', [bytes('x')]);
    await assert.rejects(blobs.putIfAbsent('a/b/c', []), failsWith('usage'));
    await assert.rejects(blobs.putIfAbsent('a', []), failsWith('usage'));
    assert.equal(await blobs.get('a'), undefined);
    assert.equal(await blobs.get('a/b/c'), undefined);
    await blobs.delete('a');
    await blobs.delete('a/b/c');
    assert.equal((await blobs.list('')).blobs.length, 1);
  });

  it('goes on after somebody removed its empty folders', async () => {
    const root = join(folder, 'pruned');
    await using blobs = await openFileBlobs(root, settings);
    await blobs.putIfAbsent('a/b/c', [bytes('x')]);
    await rm(join(root, 'a'), { recursive: true });
    assert.equal(await blobs.putIfAbsent('a/b/c', [bytes('y')]), 'created');
  });

  it('sweeps temporary files of the dead at once, and of strangers after a day', async () => {
    const root = join(folder, 'swept');
    await (await openFileBlobs(root, settings)).close();
    const temporary = join(root, '.holdfast', 'temporary');
    const strangers = ['0123456789abcdef-1-00', 'odd'];
    for (const name of strangers) await writeFile(join(temporary, name), 'x');
    await (await openFileBlobs(root, settings)).close();
    assert.deepEqual((await readdir(temporary)).sort(), strangers);
    const old = new Date(systemClock.nowMs() - 25 * 3600 * 1000);
    for (const name of strangers) await utimes(join(temporary, name), old, old);
    await (await openFileBlobs(root, settings)).close();
    assert.deepEqual(await readdir(temporary), []);
  });

  const noMount = mountProblem();
  it('says "target-full" on a full disk, leaves nothing half, and works again when there is space', {
    skip: noMount,
  }, async () => {
    await withTmpfs(folder, 'size=4m', async (root) => {
      await using blobs = await openFileBlobs(root, settings);
      await blobs.putIfAbsent('first', [Buffer.alloc(2_000_000, 1)]);
      await assert.rejects(blobs.putIfAbsent('second', [Buffer.alloc(3_000_000)]), (error) => {
        assert.ok(isHoldfastError(error, 'target-full'));
        assert.match(error.remedy ?? '', /space/);
        return true;
      });
      assert.equal((await blobs.list('')).blobs.length, 1);
      await blobs.delete('first');
      assert.equal(await blobs.putIfAbsent('second', [Buffer.alloc(3_000_000)]), 'created');
    });
  });

  it('says what to do about a read-only file system', { skip: noMount }, async () => {
    await withTmpfs(folder, 'size=4m', async (root) => {
      await using blobs = await openFileBlobs(root, settings);
      execFileSync('mount', ['-o', 'remount,ro', root]);
      await assert.rejects(blobs.putIfAbsent('a', []), (error) => {
        assert.ok(isHoldfastError(error, 'store-failed'));
        assert.match(error.remedy ?? '', /writable/);
        return true;
      });
    });
  });
});

function mountProblem(): string | false {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'needs root on Linux, to mount a small tmpfs';
  try {
    execFileSync('unshare', ['--mount', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { stdio: 'ignore' });
    return false;
  } catch {
    return 'needs the right to mount a tmpfs';
  }
}

async function withTmpfs(folder: string, options: string, work: (root: string) => Promise<void>): Promise<void> {
  const root = await mkdtemp(join(folder, 'tmpfs-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', root]);
  try {
    await work(root);
  } finally {
    execFileSync('umount', ['-l', root]);
  }
}
