import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { seededRandom } from '#test/compat/seeded-random.ts';
import { Journal, type JournaledPack, parseJournal } from './journal.ts';

const folder = mkdtempSync(join(tmpdir(), 'holdfast-journal-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const random = seededRandom('journal');

const packOf = (footerBytes: number): JournaledPack => ({
  pack: { id: Buffer.from(random.bytes(16)), sizeBytes: 40_000_000 + footerBytes, footerOffset: 39_000_000 },
  footer: Buffer.from(random.bytes(footerBytes)),
});
const packs = [packOf(100), packOf(0), packOf(333)];

function written(): { readonly bytes: Buffer; readonly ends: readonly number[] } {
  const path = join(folder, 'whole');
  rmSync(path, { force: true });
  const { journal } = Journal.open(path);
  const ends = packs.map((pack) => {
    journal.add(pack);
    return readFileSync(path).length;
  });
  journal.close();
  return { bytes: readFileSync(path), ends };
}

describe('the journal', () => {
  it('gives back the packs that were written down, in order', () => {
    const { bytes } = written();
    assert.deepEqual(parseJournal(bytes), { packs, validBytes: bytes.length });
  });

  it('torn at any byte gives back what is whole, and goes on from there', () => {
    const { bytes, ends } = written();
    const added = packOf(5);
    for (let length = 0; length <= bytes.length; length++) {
      const path = join(folder, 'torn');
      writeFileSync(path, bytes.subarray(0, length));
      const whole = packs.slice(0, ends.filter((end) => end <= length).length);
      const { journal, packs: found } = Journal.open(path);
      assert.deepEqual(found, whole, `${length} bytes`);
      if (length % 7 === 0) journal.add(added);
      journal.close();
      if (length % 7 === 0) assert.deepEqual(parseJournal(readFileSync(path)).packs, [...whole, added]);
    }
  });

  it('with a flipped bit gives back what comes before it', () => {
    const { bytes, ends } = written();
    for (let at = 0; at < bytes.length; at++) {
      bytes[at]! ^= 0x10;
      assert.deepEqual(parseJournal(bytes).packs, packs.slice(0, ends.filter((end) => end <= at).length), `byte ${at}`);
      bytes[at]! ^= 0x10;
    }
  });

  it('is gone once its session is over', () => {
    const path = join(folder, 'a', 'b', 'finished');
    const { journal, packs: none } = Journal.open(path);
    assert.deepEqual(none, []);
    journal.add(packs[0]!);
    journal.finish();
    assert.equal(existsSync(path), false);
  });
});
