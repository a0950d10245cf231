import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { seededRandom } from '#test/compat/seeded-random.ts';
import { createVaultKeys } from './keys.ts';
import {
  assemblePack,
  PACK_TRAILER_BYTES,
  type PackSlot,
  parsePackFooter,
  parsePackTrailer,
  type SealedChunk,
} from './pack.ts';
import { PACK_MAX_SLOTS } from './parameters.ts';
import { SEAL_OVERHEAD_BYTES, Sealer } from './seal.ts';
import { sha256 } from './sha256.ts';

const random = seededRandom('pack');
const sealer = new Sealer(createVaultKeys('vlt_01KDWPVNG0S3MF4F3TX3YRXCD8', random), random);
const damaged = (error: unknown) => isHoldfastError(error, 'damaged');

function chunk(number: number, bytes = 100, children = 0): SealedChunk {
  const id = sha256(Buffer.from([number, number >> 8]));
  const content = random.bytes(bytes);
  const out = Buffer.alloc(bytes + SEAL_OVERHEAD_BYTES);
  sealer.seal(children === 0 ? 'data' : 'node', id, content, bytes, out);
  return { bytes: out, sha256: sha256(out), children: random.bytes(children * 32) };
}

function parse(pack: Buffer): PackSlot[] {
  const { offset, length, sha256: hash } = parsePackTrailer(pack.subarray(-PACK_TRAILER_BYTES), pack.length);
  return parsePackFooter(pack.subarray(offset, offset + length), offset, hash);
}

describe('a pack', () => {
  it('holds every chunk in the slot that was told, with its hash, header and children', () => {
    for (const count of [1, 2, 17, 300]) {
      const chunks = Array.from({ length: count }, (_, i) => chunk(i, 1 + ((i * 37) % 200), i % 5));
      const { parts, sizeBytes, footerOffset, slotOf } = assemblePack(chunks, random);
      const pack = Buffer.concat(parts);
      assert.equal(pack.length, sizeBytes);
      const slots = parse(pack);
      assert.equal(slots.length, count);
      assert.equal(new Set(slotOf).size, count);
      chunks.forEach((one, i) => {
        const slot = slots[slotOf[i]!]!;
        assert.deepEqual(pack.subarray(slot.offset, slot.offset + slot.length), one.bytes);
        assert.deepEqual(slot.sha256, one.sha256);
        assert.deepEqual(slot.children, Buffer.from(one.children));
        assert.deepEqual(slot.id, Buffer.from(one.bytes.subarray(12, 44)));
        assert.ok(slot.offset + slot.length <= footerOffset);
      });
    }
  });

  it('shuffles its chunks', () => {
    const chunks = Array.from({ length: 100 }, (_, i) => chunk(i));
    const places = [...assemblePack(chunks, random).slotOf];
    const neighbours = places.filter((slot, i) => slot === (places[i - 1] ?? -9) + 1).length;
    assert.ok(neighbours < 10, `${neighbours} of 99 pairs are still neighbours`);
    assert.notDeepEqual(places, [...assemblePack(chunks, random).slotOf], 'another order each time');
  });

  it('is refused once any bit of its footer or trailer has flipped', () => {
    const pack = Buffer.concat(assemblePack([chunk(1), chunk(2, 50, 2)], random).parts);
    const { offset } = parsePackTrailer(pack.subarray(-PACK_TRAILER_BYTES), pack.length);
    for (let bit = offset * 8; bit < pack.length * 8; bit++) {
      pack[bit >> 3]! ^= 1 << (bit & 7);
      assert.throws(() => parse(pack), damaged, `bit ${bit - offset * 8} of the footer`);
      pack[bit >> 3]! ^= 1 << (bit & 7);
    }
    parse(pack);
  });

  it('is refused when it is cut short, empty or another size than it says', () => {
    const pack = Buffer.concat(assemblePack([chunk(1)], random).parts);
    for (const length of [0, 8, 47, 48, 100, pack.length - 1])
      assert.throws(() => parse(pack.subarray(0, length)), damaged);
    assert.throws(() => parse(Buffer.concat([Buffer.alloc(1), pack])), damaged);
  });

  it('is refused when a footer with the right hash points outside of the pack', () => {
    const { footer, footerOffset } = assemblePack([chunk(1)], random);
    for (const [at, value] of [
      [4, 7],
      [4, footerOffset],
      [8, 71],
      [8, footerOffset],
      [0, 0],
      [0, 2],
      [0, 70_000],
    ] as const) {
      const wrong = Buffer.from(footer);
      wrong.writeUInt32LE(value, at);
      assert.throws(() => parsePackFooter(wrong, footerOffset, sha256(wrong)), damaged, `${value} at ${at}`);
    }
    const longer = Buffer.concat([footer, Buffer.alloc(1)]);
    assert.throws(() => parsePackFooter(longer, footerOffset, sha256(longer)), damaged);
  });

  it('has at least one chunk and at most 65,535', () => {
    assert.throws(() => assemblePack([], random), RangeError);
    const one = chunk(1, 1);
    assert.throws(() => assemblePack(Array<SealedChunk>(PACK_MAX_SLOTS + 1).fill(one), random), RangeError);
  });
});
