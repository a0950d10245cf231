import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { seededRandom } from '#test/compat/seeded-random.ts';
import {
  checkIndexSegment,
  encodeIndexSegment,
  INDEX_HEADER_BYTES,
  IndexEntries,
  IndexSegmentReader,
  indexHeadLength,
  readIndexHead,
} from './index-segment.ts';

const random = seededRandom('index');
const damaged = (error: unknown) => isHoldfastError(error, 'damaged');

interface Known {
  readonly id: Buffer;
  readonly pack: number;
  readonly slot: number;
}

function segmentOf(known: readonly Known[]): Buffer {
  const entries = new IndexEntries();
  const packs = Math.max(0, ...known.map(({ pack }) => pack + 1));
  for (let i = 0; i < packs; i++)
    entries.addPack({ id: Buffer.alloc(16, i), sizeBytes: 1000 + i, footerOffset: 900 + i });
  for (const { id, pack, slot } of known) entries.add(id, pack, slot);
  return encodeIndexSegment(entries);
}

function open(segment: Buffer): { readonly reader: IndexSegmentReader; readonly reads: () => number } {
  checkIndexSegment(segment);
  const head = segment.subarray(0, indexHeadLength(segment.subarray(0, INDEX_HEADER_BYTES)));
  let reads = 0;
  const reader = new IndexSegmentReader(
    readIndexHead(head, (bytes) => new SharedArrayBuffer(bytes)),
    (offset, into) => {
      reads++;
      segment.copy(into, 0, offset, offset + into.length);
    },
  );
  return { reader, reads: () => reads };
}

const someIds = (count: number): Known[] =>
  Array.from({ length: count }, (_, i) => ({ id: Buffer.from(random.bytes(32)), pack: i % 3, slot: i % 65_536 }));

describe('an index segment', () => {
  for (const count of [0, 1, 170, 171, 100_000]) {
    it(`of ${count} entries finds each where it is, and no other`, () => {
      const known = someIds(count);
      const { reader } = open(segmentOf(known));
      for (const { id, pack, slot } of known) {
        const found = reader.locate(id)!;
        if (found?.slot !== slot || found.pack.sizeBytes !== 1000 + pack || found.pack.footerOffset !== 900 + pack)
          assert.fail(`${id.toString('hex')} was found elsewhere`);
      }
      for (const { id } of someIds(2000)) assert.equal(reader.has(id), false);
      assert.equal(reader.packCount, Math.min(count, 3));
    });
  }

  it('reads one page for what it has, and for what it lacks hardly any', () => {
    const known = someIds(50_000);
    const { reader, reads } = open(segmentOf(known));
    for (const { id } of known.slice(0, 1000)) reader.has(id);
    assert.ok(reads() <= 1000);
    const before = reads();
    for (const { id } of someIds(10_000)) reader.has(id);
    assert.ok(reads() - before < 250, `${reads() - before} reads for 10,000 absent ids`);
  });

  it('finds ids whose first six bytes are equal, on whichever page they lie', () => {
    // More than two pages of them, between others.
    const alike = Array.from({ length: 400 }, (_, i) => {
      const id = Buffer.from(random.bytes(32));
      id.fill(0x77, 0, 6);
      return { id, pack: 0, slot: i };
    });
    const known = [...someIds(1000), ...alike];
    const { reader } = open(segmentOf(known));
    for (const { id, slot } of known) assert.equal(reader.locate(id)?.slot, slot);
    const absent = Buffer.from(random.bytes(32));
    absent.fill(0x77, 0, 6);
    assert.equal(reader.has(absent), false);
  });

  it('keeps all entries of one id and answers one of them', () => {
    const [one] = someIds(1);
    const known = Array.from({ length: 500 }, (_, slot) => ({ id: one!.id, pack: 0, slot }));
    const { reader } = open(segmentOf([...someIds(100), ...known]));
    assert.ok(reader.locate(one!.id)!.slot < 500);
    assert.equal(reader.head.count, 600);
  });

  it('is refused once any byte of it has changed, or it is cut short', () => {
    const segment = segmentOf(someIds(200));
    for (let at = 0; at < segment.length; at++) {
      segment[at]! ^= 1 << (at & 7);
      assert.throws(() => checkIndexSegment(segment), damaged, `byte ${at}`);
      segment[at]! ^= 1 << (at & 7);
    }
    checkIndexSegment(segment);
    for (const length of [0, 8, 64, 96, 4096, segment.length - 1])
      assert.throws(() => checkIndexSegment(segment.subarray(0, length)), damaged);
  });

  it('is refused when an entry names a pack that it does not have', () => {
    const entries = new IndexEntries();
    entries.addPack({ id: Buffer.alloc(16), sizeBytes: 1, footerOffset: 1 });
    const id = Buffer.from(random.bytes(32));
    entries.add(id, 1, 0);
    const { reader } = open(encodeIndexSegment(entries));
    assert.throws(() => reader.locate(id), damaged);
  });
});
