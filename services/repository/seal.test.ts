import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { isHoldfastError } from '#contract/errors.ts';
import { seededRandom } from '#test/compat/seeded-random.ts';
import { createVaultKeys, rotateVaultKeys } from './keys.ts';
import { parseSealHeader, SEAL_OVERHEAD_BYTES, Sealer } from './seal.ts';

const random = seededRandom('seal');
const keys = createVaultKeys('vlt_01KDWPVNG0S3MF4F3TX3YRXCD8', random);
const sealer = new Sealer(keys, random);
const damaged = (error: unknown) => isHoldfastError(error, 'damaged');

function seal(content: Uint8Array, by = sealer, id = Buffer.alloc(32, 3), level = 1): Buffer {
  const stored = by.compress(content, level);
  const out = Buffer.alloc(stored.length + SEAL_OVERHEAD_BYTES);
  assert.equal(by.seal('data', id, stored, content.length, out), out.length);
  return out;
}

describe('a sealed chunk', () => {
  it('opens to what was sealed, at any length and level', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 70_000 }),
        fc.integer({ min: 1, max: 9 }),
        fc.boolean(),
        (length, level, noise) => {
          const content = noise ? random.bytes(length) : Buffer.alloc(length, 'abcdefg ');
          const { header, content: opened } = sealer.open(seal(content, sealer, Buffer.alloc(32, 8), level));
          assert.deepEqual(opened, Buffer.from(content));
          assert.deepEqual(header.id, Buffer.alloc(32, 8));
          assert.equal(header.rawLength, length);
        },
      ),
      { seed: 6, numRuns: 80 },
    );
  });

  it('is raw where compression saves less than two percent', () => {
    const noise = random.bytes(8192);
    assert.equal(parseSealHeader(seal(noise)).codec, 'raw');
    assert.equal(seal(noise).length, 8192 + SEAL_OVERHEAD_BYTES);
    assert.equal(parseSealHeader(seal(Buffer.alloc(8192, 'words '))).codec, 'zstd');
  });

  it('looks different each time, for its nonce is random', () => {
    assert.notDeepEqual(seal(Buffer.alloc(100)).subarray(44), seal(Buffer.alloc(100)).subarray(44));
  });

  for (const content of [random.bytes(20), Buffer.alloc(600, 'compressible ')]) {
    it(`of ${content.length} bytes does not open once any single bit has flipped`, () => {
      const sealed = seal(content);
      for (let bit = 0; bit < sealed.length * 8; bit++) {
        sealed[bit >> 3]! ^= 1 << (bit & 7);
        assert.throws(
          () => sealer.open(sealed),
          (error) => damaged(error) || isHoldfastError(error, 'wrong-key'),
          `bit ${bit}`,
        );
        sealed[bit >> 3]! ^= 1 << (bit & 7);
      }
      assert.deepEqual(sealer.open(sealed).content, Buffer.from(content));
    });
  }

  it('does not open when it is cut short or has bytes behind it', () => {
    const sealed = seal(random.bytes(50));
    for (let length = 0; length < sealed.length; length++)
      assert.throws(() => sealer.open(sealed.subarray(0, length)), damaged);
    assert.throws(() => sealer.open(Buffer.concat([sealed, Buffer.alloc(1)])), damaged);
  });

  it('does not open under another id, though everything else fits', () => {
    const one = seal(Buffer.alloc(100, 1), sealer, Buffer.alloc(32, 1));
    Buffer.alloc(32, 2).copy(one, 12);
    assert.throws(() => sealer.open(one), damaged);
  });

  it('says wrong-key, not damaged, where the key file is older than the last rotation', () => {
    const later = rotateVaultKeys(keys, random);
    const byLater = new Sealer(later, random);
    const sealed = seal(Buffer.alloc(100, 1), byLater);
    assert.equal(parseSealHeader(sealed).epoch, 1);
    assert.throws(
      () => sealer.open(sealed),
      (error) => isHoldfastError(error, 'wrong-key'),
    );
    assert.deepEqual(byLater.open(seal(Buffer.alloc(100, 1))).content, Buffer.alloc(100, 1), 'old data stays readable');
  });

  it('never decompresses to more than it says it holds', () => {
    const bomb = Buffer.alloc(1024 * 1024);
    const stored = sealer.compress(bomb, 3);
    const out = Buffer.alloc(stored.length + SEAL_OVERHEAD_BYTES);
    sealer.seal('data', Buffer.alloc(32), stored, 1000, out);
    assert.throws(() => sealer.open(out), damaged);
    sealer.seal('data', Buffer.alloc(32), stored, 1024 * 1024 - 1, out);
    assert.throws(() => sealer.open(out), damaged);
  });
});
