import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { encodeIndexSegment, IndexEntries } from '#repository/index-segment.ts';
import { sha256 } from '#repository/sha256.ts';
import { SeededRandom } from '#test/random.ts';
import { openIndexCopy, writeIndexCopy } from './index-copies.ts';
import { type IndexCopy, KnownChunks } from './known-chunks.ts';

const folder = mkdtempSync(join(tmpdir(), 'holdfast-known-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const idOf = (number: number) => sha256(Buffer.from(`chunk ${number}`));

async function copy(name: string, pack: number, from: number, to: number): Promise<IndexCopy> {
  const entries = new IndexEntries();
  entries.addPack({ id: Buffer.alloc(16, pack), sizeBytes: 100, footerOffset: 50 });
  for (let i = from; i < to; i++) entries.add(idOf(i), 0, i - from);
  await writeIndexCopy(join(folder, name), encodeIndexSegment(entries), new SeededRandom(pack));
  return await openIndexCopy(join(folder, name));
}

describe('known chunks', () => {
  it('are those of every segment, each with all its places, the newest segment first', async () => {
    using known = new KnownChunks([await copy('old', 1, 0, 300)]);
    assert.equal(known.has(idOf(299)), true);
    assert.equal(known.has(idOf(300)), false);
    known.add(await copy('new', 2, 200, 500));
    assert.equal(known.has(idOf(300)), true);
    const places = (i: number) => [...known.locations(idOf(i))].map(({ pack, slot }) => [pack.id[0], slot]);
    assert.deepEqual(places(250), [
      [2, 50],
      [1, 250],
    ]);
    assert.deepEqual(places(10), [[1, 10]]);
    assert.deepEqual(places(900), []);
    assert.deepEqual(
      [...known.packs()].map((pack) => pack.id[0]),
      [1, 2],
    );
  });

  it('are not taken from a copy that has been cut short since', async () => {
    using known = new KnownChunks([await copy('short', 1, 0, 300)]);
    truncateSync(join(folder, 'short'), 100);
    assert.throws(
      () => known.has(idOf(5)),
      (error) => isHoldfastError(error, 'damaged'),
    );
  });
});
