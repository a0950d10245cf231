import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { describe, it } from 'node:test';
import { ChunkNamer } from './chunk.ts';
import { hashPages } from './page.ts';

const namer = new ChunkNamer(Buffer.alloc(32, 1));

function content(bytes: number, seed = 0): Buffer {
  return Buffer.from(Uint8Array.from({ length: bytes }, (_, i) => i * 31 + (i >> 9) + seed));
}

describe('a chunk’s id', () => {
  it('is the same from its content as from the hashes of its pages', () => {
    for (const bytes of [1, 4095, 4096, 4097, 128 * 4096, 200 * 4096]) {
      const hashes = Buffer.alloc(Math.ceil(bytes / 4096) * 32);
      hashPages(content(bytes), hashes);
      assert.deepEqual(namer.ofContent('data', content(bytes)), namer.ofPageHashes(hashes), `${bytes} bytes`);
    }
  });

  it('of a node is the code of its content, with a tag of its own', () => {
    const expected = createHmac('sha256', Buffer.alloc(32, 1))
      .update(Buffer.from([2]))
      .update(content(500))
      .digest();
    assert.deepEqual(namer.ofContent('node', content(500)), expected);
    assert.notDeepEqual(namer.ofContent('data', content(500)), expected);
  });

  it('tells every difference: in content, order, length, kind and key', () => {
    const base = content(3 * 4096);
    const id = namer.ofContent('data', base);
    assert.ok(namer.matches('data', base, id));
    const swapped = Buffer.concat([base.subarray(4096, 8192), base.subarray(0, 4096), base.subarray(8192)]);
    const flipped = Buffer.from(base);
    flipped[9000]! ^= 1;
    for (const other of [swapped, flipped, base.subarray(0, -1), Buffer.concat([base, Buffer.alloc(1)])])
      assert.ok(!namer.matches('data', other, id));
    assert.ok(!namer.matches('node', base, id));
    assert.ok(!new ChunkNamer(Buffer.alloc(32, 2)).matches('data', base, id));
  });
});
