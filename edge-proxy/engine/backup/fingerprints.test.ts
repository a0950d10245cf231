import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { ZERO_PAGE_HASH } from '#repository/page.ts';
import { sha256 } from '#repository/sha256.ts';
import {
  applyFingerprintLog,
  fingerprintMatches,
  readFingerprints,
  recordAll,
  recordSome,
  SUM_BYTES,
} from './fingerprints.ts';

const folder = mkdtempSync(join(tmpdir(), 'holdfast-fingerprints-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const file = join(folder, 'fingerprints');
const log = join(folder, 'log');

const SEGMENTS = 3;
/** Content of a page as a number; 0 is a zero page. */
const hashOf = (content: number) => (content === 0 ? ZERO_PAGE_HASH : sha256(Buffer.from([content, content >> 8])));

/** Buffers as a worker has them, with the contents given from page 0 on. */
function worked(contents: readonly number[]): { readonly hashes: Buffer; readonly zero: Uint8Array } {
  return { hashes: Buffer.concat(contents.map(hashOf)), zero: Uint8Array.from(contents, (c) => (c === 0 ? 1 : 0)) };
}

const records = fc.array(
  fc.record({
    segment: fc.nat({ max: SEGMENTS - 1 }),
    all: fc.boolean(),
    contents: fc.array(fc.nat({ max: 60_000 }), { minLength: 1, maxLength: 40 }),
    pages: fc.uniqueArray(fc.nat({ max: 39 }), { minLength: 1, maxLength: 20 }),
  }),
  { maxLength: 8 },
);

/** Sums of all segments; a test begins with {@link forget}. */
const sums = Buffer.alloc(SEGMENTS * SUM_BYTES);

function forget(): void {
  rmSync(file, { force: true });
  sums.fill(0);
}

/** Applies the first bytes of a log of which `whole` was written. */
function apply(bytes: number, whole = readFileSync(log).subarray(0, bytes)): boolean {
  return applyFingerprintLog({ path: log, bytes, sha256: sha256(whole).toString('hex') }, file, sums);
}

function readAll(): Buffer[] {
  const descriptor = openSync(file, 'r');
  try {
    return Array.from({ length: SEGMENTS }, (_, segment) => {
      const into = Buffer.alloc(4096 * 16, 0xff);
      readFingerprints(descriptor, sums, segment, into);
      return into;
    });
  } finally {
    closeSync(descriptor);
  }
}

describe('page fingerprints', () => {
  it('after a log are what a table of pages would be, however often the log is applied', () => {
    fc.assert(
      fc.property(records, (list) => {
        const model = Array.from({ length: SEGMENTS }, () => Buffer.alloc(4096 * 16));
        const parts = list.map(({ segment, all, contents, pages }) => {
          const { hashes, zero } = worked(contents);
          const some = pages.filter((page) => page < contents.length).sort((a, b) => a - b);
          const named = all || some.length === 0 ? contents.map((_, page) => page) : some;
          if (named.length === contents.length) model[segment]!.fill(0); // a whole segment's record leaves nothing of before
          for (const page of named) hashOf(contents[page]!).copy(model[segment]!, page * 16, 0, 16);
          return named.length === contents.length
            ? recordAll(segment, contents.length, hashes, zero)
            : recordSome(segment, named, hashes, zero);
        });
        forget();
        writeFileSync(log, Buffer.concat(parts));
        for (const part of parts.keys()) {
          // A crash after any record, then the whole log again.
          assert.ok(apply(Buffer.concat(parts.slice(0, part)).length));
        }
        for (let round = 0; round < 2; round++) {
          assert.ok(apply(Buffer.concat(parts).length));
          assert.deepEqual(readAll(), model);
        }
      }),
      { seed: 15, numRuns: 60 },
    );
  });

  it('hold whole segments and single pages at their ends', () => {
    const contents = Array.from({ length: 4096 }, (_, page) => page + 1);
    const { hashes, zero } = worked(contents);
    forget();
    writeFileSync(log, Buffer.concat([recordAll(2, 4096, hashes, zero), recordSome(0, [0, 4095], hashes, zero)]));
    assert.ok(apply(readFileSync(log).length));
    const [first, second, third] = readAll();
    assert.ok(contents.every((_, page) => fingerprintMatches(third!, page, hashes, zero)));
    assert.deepEqual(
      [0, 1, 4094, 4095].map((page) => fingerprintMatches(first!, page, hashes, zero)),
      [true, false, false, true],
    );
    assert.ok(!fingerprintMatches(second!, 0, hashes, zero), 'an unknown page matches nothing');
  });

  it('of a zero page match zero pages only, also where the last page is short', () => {
    const short = { hashes: sha256(Buffer.alloc(100)), zero: Uint8Array.of(1) }; // zeros, but of another hash
    forget();
    writeFileSync(log, recordAll(0, 1, short.hashes, short.zero));
    assert.ok(apply(readFileSync(log).length));
    const fingerprints = readAll()[0]!;
    assert.ok(fingerprintMatches(fingerprints, 0, short.hashes, short.zero));
    const data = worked([7]);
    assert.ok(!fingerprintMatches(fingerprints, 0, data.hashes, data.zero));
  });

  it('refuse a log that is shorter than it was, or not a log: old fingerprints would hide changes', () => {
    const { hashes, zero } = worked([1, 2, 3]);
    const whole = Buffer.concat([recordAll(0, 3, hashes, zero), recordSome(1, [0, 2], hashes, zero)]);
    for (let length = 0; length < whole.length; length++) {
      writeFileSync(log, whole.subarray(0, length));
      assert.equal(apply(whole.length, whole), false, `${length} bytes`);
    }
    writeFileSync(log, Buffer.alloc(whole.length)); // what a lost write leaves
    assert.equal(apply(whole.length, whole), false);
  });

  it('of a segment are not known at all if one bit of them is not what was written', () => {
    const { hashes, zero } = worked([1, 2, 3]);
    forget();
    writeFileSync(log, Buffer.concat([recordAll(0, 3, hashes, zero), recordAll(1, 3, hashes, zero)]));
    assert.ok(apply(readFileSync(log).length));
    const bytes = readFileSync(file);
    bytes[20]! ^= 4;
    writeFileSync(file, bytes);
    const [first, second] = readAll();
    assert.ok(first!.equals(Buffer.alloc(first!.length)));
    assert.ok(fingerprintMatches(second!, 2, hashes, zero));
  });
});
