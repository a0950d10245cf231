import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { openFileReader, openFileWriter } from './file.ts';

const folder = mkdtempSync(join(tmpdir(), 'holdfast-test-'));
after(() => rmSync(folder, { recursive: true }));
const at = (name: string) => join(folder, name);
const failsWith =
  (code: string, data: object = {}) =>
  (error: unknown) => {
    assert.ok(isHoldfastError(error, code as 'usage'), `${error}`);
    for (const [name, value] of Object.entries(data)) assert.equal(error.data[name], value, name);
    return true;
  };

it('a file that shrinks while it is read is reported with both sizes, never read as something else', async () => {
  writeFileSync(at('shrinking'), Buffer.alloc(10_000, 1));
  const reader = openFileReader(at('shrinking'));
  truncateSync(at('shrinking'), 6000);
  await reader.read(0, new Uint8Array(6000));
  const range = { offset: 6000, length: 1000, sizeBytes: 10_000, nowBytes: 6000 };
  assert.throws(() => void reader.read(5000, new Uint8Array(2000)), failsWith('source-changed', range));
  await reader.close();
});

it('a new target is sparse, private, of the right size, and starts with zeros', async () => {
  const writer = await openFileWriter(at('new'), { createSizeBytes: 2 ** 40 });
  assert.deepEqual([writer.sizeBytes, writer.startsZero], [2 ** 40, true]);
  await writer.write(2 ** 40 - 3, Buffer.from('end'));
  await writer.zero(0, 100_000);
  await writer.flush();
  const into = new Uint8Array(4);
  await writer.read(2 ** 40 - 4, into);
  assert.deepEqual([...into], [0, ...Buffer.from('end')]);
  await writer.close();
  const { size, blocks, mode } = statSync(at('new'));
  assert.deepEqual([size, mode & 0o777], [2 ** 40, 0o600]);
  assert.ok(blocks * 512 < 100_000, 'not sparse');
});

it('zeroing writes what is not zero and leaves the rest', async () => {
  writeFileSync(at('zeroed'), Buffer.alloc(600_000, 7));
  const writer = await openFileWriter(at('zeroed'));
  assert.equal(writer.startsZero, false);
  await writer.zero(1, 599_998);
  await writer.close();
  const found = await readFile(at('zeroed'));
  assert.deepEqual([found[0], found[599_999], found.indexOf(0), found.lastIndexOf(0)], [7, 7, 1, 599_998]);
});

it('an existing target is taken if it has the size, or none yet; else it is left alone', async () => {
  writeFileSync(at('same'), 'abc');
  const same = await openFileWriter(at('same'), { createSizeBytes: 3 });
  assert.equal(same.startsZero, false);
  await same.close();
  writeFileSync(at('empty'), '');
  const empty = await openFileWriter(at('empty'), { createSizeBytes: 3 });
  assert.deepEqual([empty.startsZero, statSync(at('empty')).size], [true, 3]);
  await empty.close();
  await assert.rejects(
    openFileWriter(at('same'), { createSizeBytes: 4 }),
    failsWith('exists', { sizeBytes: 3, neededBytes: 4 }),
  );
  assert.equal(await readFile(at('same'), 'utf8'), 'abc');
});

it('a write outside of the disk is refused: it would make the file grow', async () => {
  const writer = await openFileWriter(at('bounded'), { createSizeBytes: 10 });
  assert.throws(() => void writer.write(9, Buffer.alloc(2)), failsWith('usage'));
  assert.throws(() => void writer.zero(-1, 2), failsWith('usage'));
  await writer.close();
  assert.equal(statSync(at('bounded')).size, 10);
});

it('a target that cannot be made says why', async () => {
  await assert.rejects(openFileWriter(at('no/such/folder'), { createSizeBytes: 1 }), failsWith('not-found'));
  await assert.rejects(openFileWriter(at('none')), failsWith('not-found'));
  await assert.rejects(openFileWriter(folder, { createSizeBytes: 1 }), failsWith('usage'));
});

it('a full file system is told from a broken one, with the place where it was full', async (t) => {
  const script = `import { openFileWriter } from '#edge/sources/file.ts';
    const writer = await openFileWriter(process.argv[1], { createSizeBytes: 8388608 });
    try { for (let at = 0; ; at += 65536) await writer.write(at, Buffer.alloc(65536, 1)); }
    catch (error) { console.log(error.code, error.data.offset > 100000); }`;
  const mount = 'mount -t tmpfs -o size=1m none "$0" || exit 77; exec "$@"';
  const node = [process.execPath, '--input-type=module', '-e', script, at('full')];
  const { status, stdout } = spawnSync('unshare', ['-m', 'sh', '-c', mount, folder, ...node], {
    encoding: 'utf8',
    timeout: 20_000,
  });
  if (status !== 0) return t.skip('needs the right to mount a small file system');
  assert.equal(stdout.trim(), 'target-full true');
});
